"""The catalogue of metrics, by Prometheus' own conventions."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from secbeat.telemetry import reference
from secbeat.telemetry.catalogue import CATALOGUE
from secbeat.telemetry.families import Families

ENTRIES = [metric for entries in CATALOGUE.values() for metric in entries.values()]
OURS = [metric for metric in ENTRIES if metric.name.startswith("secbeat_")]
UNITS = {"seconds", "bytes", "ratio"}
# The guide and the original made these names; they are kept as they are.
GIVEN = {"secbeat_fleet_size_current"}


@pytest.mark.parametrize("metric", OURS, ids=lambda metric: metric.name)
def test_a_name_of_ours_follows_the_conventions(metric):
    assert re.fullmatch(r"secbeat(_[a-z]+)+", metric.name)
    assert metric.help.endswith("."), "a help text is a sentence"
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    assert (metric.kind == "info") == metric.name.endswith("_info")
    assert metric.unit in UNITS | {""}
    if metric.unit:
        assert metric.name.removesuffix("_total").endswith(f"_{metric.unit}"), "the unit is the name's suffix"
    else:
        assert metric.name.rpartition("_")[2] not in UNITS
    if metric.kind == "histogram":
        assert metric.unit == "seconds"
        assert list(metric.buckets) == sorted(metric.buckets)


@pytest.mark.parametrize("metric", ENTRIES, ids=lambda metric: f"{metric.service}:{metric.name}")
def test_no_label_grows_with_the_machines_that_come_and_go(metric):
    assert not {"node", "node_id", "name", "op_id", "address", "instance", "peer"} & set(metric.labels)
    assert set(metric.values) == set(metric.labels), "each label says which values it has"


def test_the_guides_names_have_the_guides_labels_alone():
    found = CATALOGUE["orchestrator"]
    assert {name: found[name].labels for name in (
        "secbeat_scaling_decisions_total", "secbeat_node_terminations_total", "secbeat_fleet_size_current",
        "secbeat_webhook_calls_total",
    )} == {
        "secbeat_scaling_decisions_total": ("action",),
        "secbeat_node_terminations_total": (),
        "secbeat_fleet_size_current": (),
        "secbeat_webhook_calls_total": ("status",),
    }  # fmt: skip


def test_what_is_not_in_the_catalogue_cannot_be_made():
    families = Families("node")
    with pytest.raises(KeyError):
        families.gauge("secbeat_node_invented", 1)
    with pytest.raises(ValueError, match="is a counter"):
        families.gauge("secbeat_node_requests_total", 1)


def test_every_metric_has_a_row_in_the_reference():
    page = reference.metrics()
    for service, entries in CATALOGUE.items():
        section = page.split(f"## {service.capitalize()}\n", 1)[1].split("\n## ", 1)[0]
        rows = {line.split("`")[1] for line in section.splitlines() if line.startswith("| `")}
        assert rows == set(entries)


@pytest.mark.parametrize("page", ["metrics", "logs"])
def test_the_module_prints_the_page(page):
    run = subprocess.run(
        [sys.executable, "-m", "secbeat.telemetry.reference", page],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    assert run.stdout == getattr(reference, page)()
