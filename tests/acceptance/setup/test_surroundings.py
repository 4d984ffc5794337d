"""What a start finds around it: taken ports, no NATS or another one, directories that are not its own."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

LISTENERS = [
    ("orchestrator", "orchestrator", "listen_addr"),
    ("orchestrator", "orchestrator", "metrics_addr"),
    ("provisioner", "provisioner", "listen_addr"),
    ("node", "node", "listen_addr"),
    ("node", "node", "metrics_addr"),
    ("node", "management", "listen_addr"),
    ("up", "orchestrator", "listen_addr"),
    ("up", "orchestrator", "metrics_addr"),
    ("up", "provisioner", "listen_addr"),
]
# Not the proxy, which speaks TLS; of 'up' one, which starts the same services.
UNGUARDED = [one for one in LISTENERS if one[1:] != ("node", "listen_addr")][:6]


@pytest.mark.parametrize(("service", "table", "key"), LISTENERS)
def test_a_taken_port_is_named(setup, taken, service, table, key):
    needed = setup.nats("-js") if service in {"orchestrator", "provisioner"} else "nats://127.0.0.1:1"
    setup.config(f"[{table}]\n{key} = '{taken}'\n", nats=needed)
    setup.refused(service, "PORT_IN_USE", taken, "ss -ltnp")


def test_a_taken_port_of_the_origin_is_named(setup, taken):
    setup.refused(["secbeat", "origin", "--listen", taken], "PORT_IN_USE", taken, "ss -ltnp")


@pytest.mark.parametrize(("service", "table", "key"), UNGUARDED)
def test_listening_to_the_network_in_plain_text_is_refused(setup, service, table, key):
    setup.config(
        f"[{table}]\n{key} = '0.0.0.0:0'\n", nats=setup.nats("-js") if service == "up" else "nats://127.0.0.1:1"
    )
    setup.refused(service, "BIND_INSECURE", f"{table}.{key}", "0.0.0.0:", "allow_plaintext = true")


def test_an_address_of_another_machine_is_named(setup):
    setup.config("[node]\nlisten_addr = '192.0.2.1:8443'\n")
    setup.refused("node", "ADDRESS_UNAVAILABLE", "192.0.2.1:8443", "ip -brief address")


NATS_USERS = pytest.mark.parametrize("service", ["orchestrator", "provisioner", "up"])


@NATS_USERS
def test_no_nats_is_named_with_what_starts_one(setup, service):
    setup.config()
    setup.refused(service, "NATS_UNREACHABLE", "nats://127.0.0.1:1", "nats-server -js")


@NATS_USERS
def test_nats_without_jetstream_is_named_with_what_starts_it(setup, service):
    url = setup.nats()
    setup.config(nats=url)
    setup.refused(service, "NATS_NO_JETSTREAM", url, "nats-server -js --port 4222 --http_port 8222")


@NATS_USERS
def test_nats_that_wants_a_login_is_named(setup, service):
    url = setup.nats("-js", "--user", "operator", "--pass", "wJ7zq2kq9d")
    setup.config(nats=url)
    ended = setup.refused(service, "NATS_AUTH", url, "nats.creds_file")
    assert "wJ7zq2kq9d" not in ended.stderr


def closed(setup):
    """A directory in which this user may not write."""
    path = setup.place.cwd / "closed"
    path.mkdir(mode=0o555)
    setup.as_anybody()
    return path


@pytest.mark.parametrize(("service"), ["orchestrator", "provisioner", "node"])
def test_a_state_directory_that_cannot_be_made_is_named(setup, service):
    directory = closed(setup) / "state"
    setup.config(f"[{service}]\nstate_dir = '{directory}'\n")
    setup.refused(service, "STATE_NOT_WRITABLE", str(directory), "Permission denied")


@pytest.mark.parametrize(("service"), ["orchestrator", "provisioner", "node"])
def test_a_state_directory_of_somebody_else_is_named(setup, service):
    directory = closed(setup)
    setup.config(f"[{service}]\nstate_dir = '{directory}'\n")
    setup.refused(service, "STATE_NOT_WRITABLE", str(directory))


def test_a_state_directory_of_up_that_cannot_be_written_is_named(setup):
    directory = closed(setup)
    setup.config()
    for state in (directory, directory / "state"):
        setup.refused([*setup.words("up"), "--state", str(state)], "STATE_NOT_WRITABLE", str(state), "--state DIR")


@pytest.mark.parametrize(("service"), ["orchestrator", "provisioner", "node"])
def test_a_log_file_that_cannot_be_written_is_named_with_its_key(setup, service):
    log = closed(setup) / "service.log"
    setup.config(f"[{service}]\nlog_file = '{log}'\n")
    setup.refused(service, "STATE_NOT_WRITABLE", str(log), f"{service}.log_file")


def test_started_in_a_directory_that_cannot_be_written_the_log_file_is_named(setup):
    """The default log file is logs/orchestrator.log where one stands."""
    setup.config()
    setup.place.cwd.chmod(0o555)
    setup.as_anybody()
    setup.refused("orchestrator", "STATE_NOT_WRITABLE", "logs/orchestrator.log", "orchestrator.log_file")
    setup.place.cwd.chmod(0o755)


def test_a_second_up_on_one_state_is_refused_and_the_first_goes_on(setup):
    url = setup.nats("-js")
    setup.config("[pools.default]\nmin = 0\n", nats=url)
    command = [*setup.words("up"), "--state", "state"]
    first = setup.place.start(command, name="up")
    first.until_says("Stop:", 60)
    setup.refused(command, "STATE_IN_USE", "state", "--state DIR")
    assert first.running
    assert (setup.place.cwd / "state" / "run.json").exists()
    pools = setup.place.run(["secbeat", "pools", "-o", "json"])
    assert pools.code != 0, "another state directory than the default one"
    setup.place.extra["SECBEAT_STATE"] = "state"
    assert setup.place.run(["secbeat", "pools", "-o", "json"]).code == 0
    first.interrupt()
    assert first.ended(60) == 0


@pytest.mark.parametrize("service", ["orchestrator", "node"])
def test_a_second_service_on_one_state_is_refused_and_the_first_goes_on(setup, service):
    setup.config(nats=setup.nats("-js"))
    first = setup.place.start(setup.words(service), name=service)
    first.until_says("istening" if service == "orchestrator" else "Proxy on", 60)
    setup.refused(service, "STATE_IN_USE", str(setup.place.state_home / "secbeat"))
    assert first.running
