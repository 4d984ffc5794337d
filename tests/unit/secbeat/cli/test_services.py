"""Commands that run a service: wrong configuration, a missing extra, flags over the environment."""

from __future__ import annotations

import json
import sys
import types

import pytest

from secbeat.cli import services
from secbeat.errors import ConfigError


@pytest.fixture
def service(monkeypatch):
    """A service whose main records what it was given and ends with 7."""
    seen = []

    async def main(stop, loaded) -> int:
        stop.request("test")
        seen.append(loaded)
        return 7

    module = types.ModuleType("node.app")
    module.main = main
    monkeypatch.setitem(sys.modules, "node.app", module)
    return seen


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr("secbeat.logs.configure", lambda *_, **__: None)


def test_a_service_gets_its_settings_and_its_exit_code_is_the_commands(run, service, tmp_path):
    config = tmp_path / "node.toml"
    config.write_text('[node]\npool = "web"\nbackend = "http://127.0.0.1:1"\n')
    assert run("node", "--config", str(config), "--set", "node.backend=http://127.0.0.1:2").code == 7
    assert service[0].settings.node.pool == "web"
    assert service[0].settings.node.backend == "http://127.0.0.1:2"
    assert service[0].sources["node.backend"] == "flag"


def test_the_configuration_may_be_named_by_the_environment(run, service, tmp_path, monkeypatch):
    config = tmp_path / "node.toml"
    config.write_text('[node]\npool = "web"\n')
    monkeypatch.setenv("SECBEAT_CONFIG", str(config))
    assert run("node").code == 7
    assert service[0].path == config


@pytest.mark.parametrize(
    ("flag", "expected"),
    [("node.poool=a", "did you mean node.pool"), ("node.pool", "has no value"), ("pool=a", "no key")],
)
def test_a_wrong_set_flag_is_refused_with_its_name(run, service, flag, expected):
    result = run("node", "--set", flag)
    assert result.code == 2
    assert "--set" in result.err
    assert expected in result.err
    assert service == []


def test_a_wrong_configuration_is_named_before_the_service_is_imported(run, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orchestrator.app", None)
    config = tmp_path / "bad.toml"
    config.write_text("[orchestrator]\nlisten_adr = 'x'\n")
    result = run("orchestrator", "--config", str(config))
    assert result.code == 2
    assert f"{config}:2: orchestrator.listen_adr: unknown key (did you mean listen_addr?)" in result.err


def test_a_missing_package_names_the_extra_that_brings_it(monkeypatch):
    monkeypatch.setattr(services, "import_module", _raise(ModuleNotFoundError("no", name="ansible_runner.interface")))
    with pytest.raises(ConfigError) as caught:
        services.service_function("provisioner.app", "main")
    assert caught.value.code == "EXTRA_MISSING"
    assert "ansible_runner" in caught.value.why
    assert caught.value.fix == "pip install 'secbeat[provisioner]'"


def test_a_module_of_ours_that_is_missing_is_no_missing_extra(monkeypatch):
    monkeypatch.setattr(services, "import_module", _raise(ModuleNotFoundError("no", name="provisioner.jobs")))
    with pytest.raises(ModuleNotFoundError):
        services.service_function("provisioner.app", "main")


def _raise(error):
    def call(_name):
        raise error

    return call


def test_up_and_demo_pass_their_options_on(run, monkeypatch, tmp_path):
    given = []

    def record(**options) -> int:
        given.append(options)
        return 3

    monkeypatch.setattr(services, "service_function", lambda _module, _name: record)
    state = tmp_path / "s"
    assert run("up", "--state", str(state), "--no-provisioner").code == 3
    assert run("demo", "--json").code == 3
    assert given == [
        {"config": None, "state": state, "provisioner": False},
        {"target": "local", "engine": "ansible", "as_json": True},
    ]


def test_config_show_names_the_source_of_every_value_and_hides_secrets(run, tmp_path, monkeypatch):
    config = tmp_path / "s.toml"
    config.write_text('scale_up_checks = 4\n[management]\nauth_token = "hunter2-hunter2"\n[pools.web]\nmax = 5\n')
    monkeypatch.setenv("SECBEAT_NATS__URL", "nats://u:hunter2@127.0.0.1:4222")
    result = run("config", "show", "--config", str(config), "--set", "node.pool=api", "-o", "json")
    rows = {row["key"]: row for row in json.loads(result.out)}
    assert rows["orchestrator.scale_up_checks"]["source"] == f"{config}:1"
    assert rows["pools.web.scale_up_checks"] == {
        "key": "pools.web.scale_up_checks",
        "value": 4,
        "source": f"{config}:1 (for all pools)",
        "reload": "live",
    }
    assert rows["pools.web.max"]["source"] == f"{config}:5"
    assert rows["pools.web.min"]["source"] == "default"
    assert rows["nats.url"]["source"] == "env SECBEAT_NATS__URL"
    assert rows["node.pool"]["source"] == "flag"
    assert rows["management.auth_token"]["value"] == "(hidden)"
    assert "hunter2" not in result.out + result.err


def test_config_show_changed_leaves_the_defaults_out(run, tmp_path):
    config = tmp_path / "s.toml"
    config.write_text("[pools.web]\nmax = 5\n")
    rows = json.loads(run("config", "show", "--changed", "--config", str(config), "-o", "json").out)
    assert [row["key"] for row in rows] == ["pools.web.max"]


def test_config_check_warns_of_what_is_valid_but_hardly_meant(run, tmp_path):
    config = tmp_path / "s.toml"
    config.write_text('[pools.web]\nmax = 20\nblueprint = "small"\n[pools.api]\nmax = 60\n[blueprints.default]\n')
    result = run("config", "check", str(config), "-o", "json")
    assert result.code == 0
    warnings = json.loads(result.out)["warnings"]
    assert any("blueprint 'small'" in warning for warning in warnings)
    assert any("max 60" in warning for warning in warnings)
    assert any("add up to 80" in warning for warning in warnings)
    assert "warning: " in result.err
