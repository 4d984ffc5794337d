"""What the configuration file, the environment and flags may say, and how a mistake is named."""

from __future__ import annotations

import pytest

from secbeat.errors import ConfigError
from secbeat.settings import PoolSettings, load

GUIDE = """\
provisioning_webhook_url = "http://localhost:8000/provision"
min_fleet_size = 1
scale_up_cpu_threshold = 0.80     # 80%
scale_down_cpu_threshold = 0.30   # 30%
scaling_check_interval_seconds = 60

[management]
enabled = true
listen_addr = "0.0.0.0:9999"
auth_token = "a-token-of-my-own"
shutdown_grace_period = 60
"""


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "secbeat.toml"

    def write(text: str):
        path.write_text(text)
        return path

    return write


def refused(path=None, **kwargs) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        load(path, **{"environ": {}, **kwargs})
    return caught.value


def test_defaults_are_the_guides_numbers():
    pool = load(None, environ={}).settings.pools["default"]
    assert (pool.scale_up_cpu_threshold, pool.scale_up_checks) == (0.80, 2)
    assert (pool.scale_down_cpu_threshold, pool.scale_down_checks) == (0.30, 5)
    assert (pool.scaling_check_interval_seconds, pool.min) == (60.0, 1)


def test_the_guides_flat_file_and_its_management_table_are_parsed_as_they_stand(config):
    loaded = load(config(GUIDE.replace("min_fleet_size = 1", "min_fleet_size = 3")), environ={})
    assert loaded.settings.pools["default"].min == 3
    assert loaded.settings.management.listen_addr == "0.0.0.0:9999"
    assert loaded.sources["orchestrator.min_fleet_size"].endswith("secbeat.toml:2")
    assert loaded.sources["management.shutdown_grace_period"].endswith("secbeat.toml:11")


def test_the_environment_stands_over_the_file_and_flags_over_both(config):
    path = config('[orchestrator]\nlisten_addr = "127.0.0.1:1"\nmetrics_addr = "127.0.0.1:2"\n')
    environ = {"SECBEAT_ORCHESTRATOR__LISTEN_ADDR": "127.0.0.1:3", "SECBEAT_ORCHESTRATOR__METRICS_ADDR": "127.0.0.1:4"}
    loaded = load(path, environ=environ, overrides={"orchestrator.metrics_addr": "127.0.0.1:5"})
    assert loaded.settings.orchestrator.listen_addr == "127.0.0.1:3"
    assert loaded.settings.orchestrator.metrics_addr == "127.0.0.1:5"
    assert loaded.sources["orchestrator.listen_addr"] == "env SECBEAT_ORCHESTRATOR__LISTEN_ADDR"
    assert loaded.sources["orchestrator.metrics_addr"] == "flag"


def test_environment_values_take_the_kind_of_their_key():
    environ = {
        "SECBEAT_MANAGEMENT__AUTH_TOKEN": "1234567890",
        "SECBEAT_NATS__REPLICAS": "3",
        "SECBEAT_NATS__LEGACY_NO_AUTH": "true",
        "SECBEAT_ORCHESTRATOR__ALLOWED_HOSTS": '["fleet.example"]',
        "SECBEAT_ORCHESTRATOR__LEGACY_NODES": '["10.1.0.0/16"]',
        "SECBEAT_POOLS__WEB__MAX": "7",
        "SECBEAT_POOLS__WEB__BLUEPRINT": "small",
        "SECBEAT_BLUEPRINTS__SMALL__VARIABLES__CORES": "2",
    }
    settings = load(None, environ=environ).settings
    assert settings.management.auth_token.get_secret_value() == "1234567890"
    assert settings.nats.replicas == 3
    assert settings.nats.legacy_no_auth is True
    assert settings.orchestrator.allowed_hosts == ["fleet.example"]
    assert [str(network) for network in settings.orchestrator.legacy_nodes] == ["10.1.0.0/16"]
    assert settings.pools["web"].max == 7
    assert settings.blueprints["small"].variables == {"cores": 2}


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "[orchestrator]\nlisten_adr = '127.0.0.1:1'\n",
            [":2:", "orchestrator.listen_adr", "did you mean listen_addr?"],
        ),
        ("[pools.web]\nmin = 2\n\nmaxx = 3\n", [":4:", "pools.web.maxx", "did you mean max?"]),
        ("[nats]\nreplicas = 1\n[nodes]\npool = 'a'\n", [":3:", "nodes", "did you mean node?"]),
        ("[node]\nlegacy_cpu_unit = 'auto'\n", [":2:", "belongs into [pools.NAME]"]),
        ("[pools.web]\nmin = 5\nmax = 3\n", [":2:", "pools.web.min", "min (5) is over max (3)"]),
        ("[pools.web]\nmin = 50\n", [":2:", "max (10, its default: set it too)"]),
        ("min_fleet_size = 20\n", [":1:", "min_fleet_size (20) is over max_fleet_size (10, its default"]),
        ("[pools.web]\nscale_up_cpu_threshold = 80\n", [":2:", "80 % is 0.8"]),
        ("[pools.web]\nscale_up_cpu_threshold = '80%'\n", [":2:", "a fraction: 0.8"]),
        ("[pools.web]\nwarmup_seconds = '5m'\n", [":2:", "seconds as a number: 300"]),
        ("[pools.web]\nscale_down_cpu_threshold = 0.9\n", [":2:", "must be below scale_up_cpu_threshold (0.8)"]),
        ("[pools.Web]\nmin = 1\n", ["Web", "not a pool name"]),
        ("[orchestrator]\nlisten_addr = '3030'\n", [":2:", "must be host:port"]),
        ("[orchestrator]\nlisten_addr = '127.0.0.1:66000'\n", [":2:", "must be host:port"]),
        ("pools = { web = { min = 'two' } }\n", [":1:", "pools.web.min", "valid integer"]),
        ("[pools.web]\nwarmup_seconds = nan\n", [":2:", "finite number"]),
        ("min_fleet_size = 2\n[pools.web]\nmin = 1\n", [":1:", "size of pool 'default', which [pools] does not have"]),
        ("min_fleet_size = 1\n[orchestrator]\nmin_fleet_size = 2\n", ["min_fleet_size is set twice"]),
        ("[provisioner.tls]\ncert_file = 'a.pem'\n", [":2:", "belong together"]),
        ("[management]\nauth_token = 'x'\nauth_token_file = 'y'\n", [":2:", "both set: keep one"]),
    ],
)
def test_a_mistake_is_named_with_file_line_and_key(config, text, expected):
    path = config(text)
    error = refused(path)
    assert error.code == "CONFIG_INVALID"
    assert str(path) in error.why or "set twice" in error.why
    for part in expected:
        assert part in error.why, error.why
    assert error.fix


@pytest.mark.parametrize("value", ["$(openssl rand -hex 32)", "${TOKEN}", "changeme", " "])
def test_a_placeholder_is_no_secret_and_the_remedy_makes_one(config, value):
    error = refused(config(f'[management]\nauth_token = "{value}"\n'))
    assert error.code == "SECRET_PLACEHOLDER"
    assert ":2: management.auth_token" in error.why
    assert "openssl rand -hex 32" in error.fix


def test_the_guides_published_token_works_only_when_it_is_knowingly_allowed(config):
    text = '[management]\nauth_token = "secure-management-token-change-in-production"\n'
    error = refused(config(text))
    assert error.code == "SECRET_PLACEHOLDER"
    assert "allow_default_token = true" in error.why
    allowed = load(config(text + "allow_default_token = true\n"), environ={})
    assert allowed.settings.management.auth_token is not None


def test_a_secret_is_not_repeated_in_the_error(config):
    error = refused(config('[management]\nauth_token = "hunter2-hunter2"\nenabled = "perhaps"\n'))
    assert "hunter2" not in "\n".join(error.lines())


@pytest.mark.parametrize(
    ("variable", "expected"),
    [
        ("SECBEAT_ORCHESTRATOR__LISTEN_ADRR", "did you mean orchestrator.listen_addr?"),
        ("SECBEAT_ORCHESTRATR__LISTEN_ADDR", "did you mean the table orchestrator?"),
        ("SECBEAT_X__Y", "there is no key x.y"),
        ("SECBEAT_POOLS__WEB", "there is no key pools.web"),
        ("SECBEAT_NODE_PUBLIC_IP", "did you mean SECBEAT_NODE__PUBLIC_IP?"),
    ],
)
def test_an_environment_variable_that_names_no_key_is_refused_by_its_name(variable, expected):
    error = refused(environ={variable: "1"})
    assert error.code == "CONFIG_INVALID"
    assert f"environment variable {variable}" in error.why
    assert expected in error.why


def test_a_wrong_environment_value_is_refused_by_the_variables_name(config):
    error = refused(config("[pools.web]\nmin = 1\n"), environ={"SECBEAT_POOLS__WEB__MIN": "20"})
    assert "env SECBEAT_POOLS__WEB__MIN" in error.why


def test_other_programs_variables_are_left_alone():
    environ = {"SECBEAT_URL": "http://h", "SECBEAT_STATE": "/s", "SECBEAT_NODE_COLOUR": "red", "PATH": "/bin"}
    assert load(None, environ=environ).sources == {}


def test_a_missing_file_and_broken_toml_have_codes_of_their_own(config, tmp_path):
    assert refused(tmp_path / "absent.toml").code == "CONFIG_UNREADABLE"
    broken = refused(config("[orchestrator\n"))
    assert (broken.code, "line 1" in broken.why) == ("CONFIG_SYNTAX", True)


def test_policy_keys_of_the_orchestrator_are_defaults_of_every_pool(config):
    text = "scale_up_checks = 4\nmax_fleet_size = 20\n[pools.default]\nmin = 2\n[pools.web]\nscale_up_checks = 9\n"
    pools = load(config(text), environ={}).settings.pools
    assert (pools["default"].scale_up_checks, pools["default"].max, pools["default"].min) == (4, 20, 2)
    assert (pools["web"].scale_up_checks, pools["web"].max) == (9, 10)


def test_an_inherited_threshold_that_contradicts_a_pools_own_is_refused_at_that_pool(config):
    error = refused(config("scale_up_cpu_threshold = 0.5\n[pools.web]\nscale_down_cpu_threshold = 0.6\n"))
    assert ":2: pools.web" in error.why
    assert "must be below" in error.why


def test_every_table_of_a_pool_has_its_own_settings(config):
    pools = load(config("[pools.a]\nmin = 2\n[pools.b]\nmax = 3\n"), environ={}).settings.pools
    assert isinstance(pools["a"], PoolSettings)
    assert (pools["a"].min, pools["b"].min, pools["b"].max) == (2, 1, 3)
