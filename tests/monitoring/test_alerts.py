"""Alert rules: each names what exists, is tested by promtool, and has a page for whoever it wakes."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess

import pytest
import yaml

HEADINGS = ["Meaning", "Impact", "Diagnosis", "Mitigation"]


@pytest.fixture(scope="session")
def promtool(root):
    """Run promtool; its output."""
    program = shutil.which("promtool", path=f"{root}/.venv/bin:{os.environ['PATH']}")
    assert program, "there is no promtool: scripts/promtool.sh"

    def run(*words):
        done = subprocess.run([program, *words], capture_output=True, text=True, timeout=60, check=False, cwd=root)
        return done.returncode, done.stdout + done.stderr

    return run


def test_each_alert_says_what_it_means_in_words_and_links_its_page(rules):
    for rule in rules:
        name, notes = rule["alert"], rule["annotations"]
        assert re.fullmatch(r"Secbeat([A-Z][a-z]+)+", name)
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert notes["runbook_url"].endswith(f"/runbooks/{name}.html")
        assert notes["description"].strip().endswith("."), name
        assert rule["labels"]["severity"] in {"critical", "warning"}
    assert len({rule["alert"] for rule in rules}) == len(rules)


def test_each_alert_asks_for_metrics_and_labels_of_the_catalogue_only(rules, check):
    assert {rule["alert"]: found for rule in rules if (found := check(rule["expr"]))} == {}


def test_each_alert_is_seen_firing_by_a_unit_test(rules, root):
    tests = yaml.safe_load((root / "tests/monitoring/alerts.test.yml").read_text())["tests"]
    fired = set()
    for test in tests:
        for one in test.get("alert_rule_test", ()):
            fired |= {one["alertname"]} if one["exp_alerts"] else set()
        for one in test.get("promql_expr_test", ()):
            for sample in one["exp_samples"]:
                labels = dict(re.findall(r'(\w+)="([^"]*)"', sample["labels"]))
                fired |= {labels["alertname"]} if labels["alertstate"] == "firing" else set()
    assert fired == {rule["alert"] for rule in rules}


def test_each_alert_has_a_page_and_each_page_an_alert(rules, root):
    pages = {path.stem for path in (root / "docs/runbooks").glob("Secbeat*.md")}
    assert pages == {rule["alert"] for rule in rules}


def test_each_page_says_what_to_look_at_and_what_to_do(rules, root):
    for rule in rules:
        text = (root / "docs/runbooks" / f"{rule['alert']}.md").read_text()
        assert text.startswith(f"# {rule['alert']}\n"), rule["alert"]
        assert re.findall(r"^## (.+)$", text, re.MULTILINE) == HEADINGS, rule["alert"]
        sections = re.split(r"^## .+$", text, flags=re.MULTILINE)[1:]
        assert all(section.strip() for section in sections), rule["alert"]
        assert re.search(r"```(sh|console)\n", sections[2]), f"{rule['alert']}: nothing to run"


def commands(root):
    """Every ``secbeat …`` line in a code block of a page."""
    for path in sorted((root / "docs/runbooks").glob("*.md")):
        for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL):
            for line in block.splitlines():
                if line.startswith("secbeat "):
                    yield shlex.split(line)[1:]


def test_the_commands_of_the_pages_exist(root):
    import typer.main

    from secbeat.cli.app import app

    top = typer.main.get_command(app)
    lines = list(commands(root))
    assert len(lines) > 40
    for words in lines:
        known, rest = top, list(words)
        while rest and rest[0] in getattr(known, "commands", {}):
            known = known.commands[rest.pop(0)]
        assert known is not top, words
        options = {name: one for one in known.params for name in (*one.opts, *one.secondary_opts) if name[0] == "-"}
        places = [one for one in known.params if one.param_type_name == "argument"]
        positional = 0
        while rest:
            word = rest.pop(0)
            if word.startswith("-"):
                assert word in options, f"{words}: there is no option {word}"
                if not options[word].is_flag:
                    rest.pop(0)
            else:
                positional += 1
        assert positional <= len(places), f"{words}: too many arguments"
        assert positional >= sum(one.required for one in places), f"{words}: an argument is missing"


@pytest.mark.needs_promtool
def test_promtool_accepts_the_rules(promtool):
    code, text = promtool("check", "rules", "monitoring/alerts/secbeat.yml")
    assert code == 0, text
    assert "22 rules found" in text


@pytest.mark.needs_promtool
def test_promtool_sees_each_alert_fire_and_stay_quiet_when_it_should(promtool):
    code, text = promtool("test", "rules", "tests/monitoring/alerts.test.yml")
    assert code == 0, text


@pytest.mark.needs_promtool
def test_promtool_understands_every_query_of_the_dashboard(promtool, dashboard, tmp_path):
    expressions = [target["expr"] for panel in dashboard["panels"] for target in panel.get("targets", ())]
    plain = [one.replace("$__rate_interval", "5m").replace("$pool", ".*") for one in expressions]
    path = tmp_path / "queries.yml"
    named = [{"record": f"query:number{number}", "expr": one} for number, one in enumerate(plain)]
    path.write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": named}]}))
    code, text = promtool("check", "rules", str(path))
    assert code == 0, text
    assert f"{len(plain)} rules found" in text


@pytest.mark.needs_promtool
def test_promtool_accepts_the_sample_configuration_of_prometheus(promtool, root, tmp_path):
    page = (root / "docs/howto/monitoring.md").read_text()
    (sample,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    rules = root / "monitoring/alerts/secbeat.yml"
    token = tmp_path / "read.token"
    token.write_text("a-token")
    text = sample.replace("/etc/prometheus/rules/secbeat.yml", str(rules))
    text = text.replace("/etc/prometheus/secbeat-read.token", str(token))
    (tmp_path / "prometheus.yml").write_text(text)
    code, said = promtool("check", "config", str(tmp_path / "prometheus.yml"))
    assert code == 0, said
    assert {job["job_name"] for job in yaml.safe_load(text)["scrape_configs"]} >= {"secbeat-provisioner"}
