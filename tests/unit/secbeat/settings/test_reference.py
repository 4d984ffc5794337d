"""The reference page and the reload marks come from the model, so they are complete by construction: checked here."""

from __future__ import annotations

import subprocess
import sys

from secbeat.settings import compare, load
from secbeat.settings.reference import markdown
from secbeat.settings.tree import find, keys, takes_text


def test_every_key_has_a_meaning_and_a_reload_mark():
    for key in keys():
        assert key.field.description, key.dotted
        assert isinstance(key.field.json_schema_extra, dict), key.dotted
        assert key.field.json_schema_extra["reload"] in {"live", "restart"}, key.dotted


def test_the_page_has_a_row_for_every_key_under_its_table():
    page = markdown()
    for key in keys():
        section = page.split(f"## `[{key.table}]`\n", 1)[1].split("\n## ", 1)[0]
        assert f"| `{key.name}` |" in section, key.dotted


def test_the_page_shows_unit_bounds_and_default():
    row = next(line for line in markdown().splitlines() if line.startswith("| `scale_up_cpu_threshold`"))
    assert "number (≥ 0, ≤ 1) | `0.8` | live" in row


def test_the_module_prints_the_page():
    run = subprocess.run(
        [sys.executable, "-m", "secbeat.settings.reference"], capture_output=True, text=True, check=True, timeout=60
    )
    assert run.stdout == markdown()


def test_a_key_is_found_by_its_dotted_name_with_the_names_of_pools():
    assert find("pools.web.max").reload == "live"
    assert find("orchestrator.tls.cert_file").reload == "restart"
    assert find("pools.web") is None
    assert find("nowhere.max") is None


def test_text_keys_are_told_from_numbers_and_lists():
    assert takes_text(find("management.auth_token").field.annotation)
    assert takes_text(find("node.state_dir").field.annotation)
    assert takes_text(find("pools.web.mode").field.annotation)
    assert not takes_text(find("nats.replicas").field.annotation)
    assert not takes_text(find("node.cpu_allowance").field.annotation)
    assert not takes_text(find("orchestrator.allowed_hosts").field.annotation)


def test_a_reload_tells_live_changes_from_those_that_want_a_restart():
    old = load(None, environ={"SECBEAT_POOLS__WEB__MAX": "5"}).settings
    new = load(None, environ={"SECBEAT_POOLS__WEB__MAX": "6", "SECBEAT_NATS__URL": "nats://10.0.0.1:4222"}).settings
    changes = {change.key: (change.reload, change.old, change.new) for change in compare(old, new)}
    assert changes == {
        "pools.web.max": ("live", 5, 6),
        "nats.url": ("restart", "nats://127.0.0.1:4222", "nats://10.0.0.1:4222"),
    }
