"""The dashboard: what it asks for exists, every panel says what it shows and in which unit."""

from __future__ import annotations


def panels(dashboard):
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def test_the_file_is_what_its_program_writes(builder, root):
    assert (root / "monitoring/grafana/secbeat.json").read_text() == builder.render()


def test_each_query_asks_for_metrics_and_labels_of_the_catalogue_only(dashboard, check):
    found = {}
    for panel in panels(dashboard):
        for target in panel["targets"]:
            if wrong := check(target["expr"].replace("$pool", ".*")):
                found[panel["title"]] = wrong
    (annotation,) = dashboard["annotations"]["list"]
    assert not check(annotation["expr"])
    assert found == {}


def test_each_panel_has_a_description_a_unit_and_a_query_with_the_chosen_datasource(dashboard):
    for panel in panels(dashboard):
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]
        assert panel["targets"], panel["title"]
        assert {target["datasource"]["uid"] for target in panel["targets"]} == {"${datasource}"}


def test_datasource_and_pool_can_be_chosen(dashboard):
    assert [(one["name"], one["type"]) for one in dashboard["templating"]["list"]] == [
        ("datasource", "datasource"),
        ("pool", "query"),
    ]


def test_the_rows_are_the_four_that_an_operator_looks_for(dashboard):
    rows = [panel["title"] for panel in dashboard["panels"] if panel["type"] == "row"]
    assert rows == ["Overview", "Scaling activity", "Provisioning performance", "Node traffic"]


def test_no_panel_lies_over_another_and_each_has_its_own_number(dashboard):
    cells = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        own = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not own & cells, panel["title"]
        assert max(x for x, _ in own) < 24
        cells |= own
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])


def test_the_check_itself_finds_what_is_wrong(check):
    assert check('sum by (pool) (rate(secbeat_decisions_total{pool=~".*"}[5m])) > 0') == []
    assert check("secbeat_invented") == ["no such metric: secbeat_invented"]
    assert check('secbeat_leader{pool="x"}') == ["secbeat_leader has no label pool"]
    assert check("sum by (node) (secbeat_pool_nodes)") == ["no metric of it has label node"]
    assert check("histogram_quantile(0.9, sum by (le) (rate(secbeat_operation_seconds_bucket[5m])))") == []
    assert check('sum(secbeat_operation_seconds{pool="x"})') != []
