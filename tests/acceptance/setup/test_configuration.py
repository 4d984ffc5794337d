"""A configuration that cannot be: every service names file, line, key and remedy."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

SERVICES = ["orchestrator", "provisioner", "node", "up"]


@pytest.mark.parametrize("service", SERVICES)
def test_an_unknown_key_is_named_with_the_one_that_was_meant(setup, service):
    setup.config("[orchestrator]\nlisten_adr = '127.0.0.1:0'\n")
    setup.refused(service, "CONFIG_INVALID", "secbeat.toml:4", "orchestrator.listen_adr", "did you mean listen_addr?")


@pytest.mark.parametrize("service", ["node", "up"])
def test_a_configuration_file_that_is_not_there_is_named(setup, service):
    setup.refused(service, "CONFIG_UNREADABLE", "secbeat.toml: No such file or directory", "ls -l secbeat.toml")


@pytest.mark.parametrize("service", ["provisioner", "up"])
def test_a_configuration_file_that_this_user_may_not_read_is_named(setup, service):
    setup.config().chmod(0o000)
    setup.as_anybody()
    setup.refused(service, "CONFIG_UNREADABLE", "secbeat.toml: Permission denied")


def test_config_check_says_the_same_of_a_file_that_this_user_may_not_read(setup):
    setup.config().chmod(0o000)
    setup.as_anybody()
    command = ["secbeat", "config", "check", "secbeat.toml"]
    setup.refused(command, "CONFIG_UNREADABLE", "secbeat.toml: Permission denied")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (
            "[orchestrator]\nscaling_check_interval_seconds = '60s'\n",
            ["orchestrator.scaling_check_interval_seconds", "60, not '60s'"],
        ),
        ("scale_up_cpu_threshold = 80\n", ["orchestrator.scale_up_cpu_threshold", "80 % is 0.8", "secbeat.toml:1"]),
        ("[pools.web]\nscale_up_cpu_threshold = '75%'\n", ["pools.web.scale_up_cpu_threshold", "0.75, not '75%'"]),
        ("[pools.web]\nmin = 5\nmax = 3\n", ["pools.web", "min (5) is over max (3"]),
        ("min_fleet_size = 11\n", ["min_fleet_size (11) is over max_fleet_size (10", "set it too"]),
        (
            "[pools.web]\nscale_up_cpu_threshold = 0.2\nscale_down_cpu_threshold = 0.3\n",
            ["pools.web", "scale_down_cpu_threshold (0.3) must be below"],
        ),
        ("[orchestrator]\nmax_fleet_size = true\n[provisioner]\nlisten_addr = '8000'\n", ["provisioner.listen_addr"]),
    ],
    ids=["seconds", "percent", "percent sign", "min over max", "flat keys", "thresholds", "address"],
)
def test_a_wrong_unit_or_an_impossible_pair_is_named_with_what_was_meant(setup, text, words):
    setup.config(text)
    setup.refused("orchestrator", "CONFIG_INVALID", "secbeat.toml", *words, "secbeat config check secbeat.toml")


def test_up_names_an_impossible_pair_as_well(setup):
    setup.config("[pools.web]\nmin = 5\nmax = 3\n")
    setup.refused("up", "CONFIG_INVALID", "secbeat.toml", "pools.web", "min (5) is over max (3")


def test_what_is_not_toml_is_named_with_its_line(setup):
    setup.place.write("secbeat.toml", "[orchestrator]\nlisten_addr = 127.0.0.1:3030\n")
    setup.refused("orchestrator", "CONFIG_SYNTAX", "secbeat.toml", "line 2")


def test_a_wrong_environment_variable_is_named(setup):
    setup.config()
    setup.place.extra["SECBEAT_ORCHESTRATOR__MIN_FLEET_SIZE"] = "many"
    setup.refused("orchestrator", "CONFIG_INVALID", "SECBEAT_ORCHESTRATOR__MIN_FLEET_SIZE", "min_fleet_size")
