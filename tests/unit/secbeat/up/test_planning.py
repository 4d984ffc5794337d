from __future__ import annotations

import socket

import pytest

from secbeat.errors import ConfigError
from secbeat.paths import StateDir
from secbeat.settings import load, split_address
from secbeat.up import planning
from secbeat.up.ports import Reservations
from secbeat.up.secrets import ensure


@pytest.fixture
def reservations():
    found = Reservations()
    yield found
    found.release()


@pytest.fixture
def state(tmp_path):
    return StateDir(tmp_path / "state").ensure()


def load_text(tmp_path, text):
    path = tmp_path / "secbeat.toml"
    path.write_text(text)
    return load(path, environ={})


WHERE = planning.Addresses("127.0.0.1:3031", "127.0.0.1:9092", "127.0.0.1:8001")


def environment(service, loaded, state, where=WHERE, nats_url="nats://127.0.0.1:4333"):
    secrets = ensure(state, nats=planning.owns_nats(loaded))
    found = planning.urls(loaded, where, nats_url)
    return planning.environment(service, loaded, state=state, secrets=secrets, where=where, found=found)


def test_port_0_becomes_a_free_port(tmp_path, reservations):
    text = '[orchestrator]\nlisten_addr = "127.0.0.1:0"\nmetrics_addr = "127.0.0.1:0"\n'
    found = planning.addresses(load_text(tmp_path, text), reservations, provisioner=False, before={})
    ports = {split_address(address)[1] for address in (found.orchestrator, found.metrics)}
    assert len(ports) == 2
    assert 0 not in ports
    assert found.provisioner is None


def test_the_port_of_the_last_start_is_taken_again(tmp_path, reservations):
    text = '[orchestrator]\nlisten_addr = "127.0.0.1:0"\nmetrics_addr = "127.0.0.1:0"\n'
    first = Reservations()
    port = first.free("127.0.0.1")
    first.release()
    before = {"url": f"http://127.0.0.1:{port}", "metrics_url": "no url: at all"}
    found = planning.addresses(load_text(tmp_path, text), reservations, provisioner=False, before=before)
    assert found.orchestrator == f"127.0.0.1:{port}"


def test_listeners_of_the_last_start_are_found():
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"127.0.0.1:{server.getsockname()[1]}"
        before = {"url": f"http://{address}", "metrics_url": "http://127.0.0.1:1/metrics", "provisioner_url": None}
        assert planning.taken(before) == [address]
    assert planning.taken(before) == []
    assert planning.taken({}) == []


def test_a_configured_port_that_is_taken_is_refused_with_its_key(tmp_path, reservations):
    with socket.create_server(("127.0.0.1", 0)) as server:
        text = f'[provisioner]\nlisten_addr = "127.0.0.1:{server.getsockname()[1]}"\n'
        text += '[orchestrator]\nlisten_addr = "127.0.0.1:0"\nmetrics_addr = "127.0.0.1:0"\n'
        with pytest.raises(ConfigError) as caught:
            planning.addresses(load_text(tmp_path, text), reservations, provisioner=True, before={})
    assert caught.value.code == "PORT_IN_USE"
    assert "provisioner.listen_addr" in caught.value.why


def test_the_services_are_told_of_each_other(tmp_path, state):
    loaded = load_text(tmp_path, "")
    told = load(environ=environment("orchestrator", loaded, state)).settings
    assert told.orchestrator.listen_addr == "127.0.0.1:3031"
    assert told.orchestrator.provisioning_webhook_url == "http://127.0.0.1:8001/provision"
    assert told.orchestrator.deprovisioning_webhook_url == "http://127.0.0.1:8001/deprovision"
    assert told.orchestrator.state_dir == state.path
    assert told.nats.url == "nats://127.0.0.1:4333"
    assert told.nats.creds_file.name == "orchestrator.creds"
    assert told.nats.issuer_seed_file.exists()
    other = load(environ=environment("provisioner", loaded, state)).settings
    assert other.provisioner.orchestrator_url == "http://127.0.0.1:3031"
    assert other.provisioner.service_token_file == state.secrets / "service.token"
    assert other.provisioner.webhook_secret_file == told.orchestrator.webhook_secret_file
    assert other.nats.creds_file.name == "provisioner.creds"
    assert other.nats.issuer_seed_file is None


def test_what_the_user_set_stays(tmp_path, state):
    text = (
        'provisioning_webhook_url = "http://127.0.0.1:7000/x"\nlog_file = "mine.log"\n'
        '[nats]\nurl = "nats://10.0.0.5:4222"\n[management]\nauth_token = "0123456789abcdef0123456789abcdef"\n'
    )
    loaded = load_text(tmp_path, text)
    assert not planning.owns_nats(loaded)
    told = environment("orchestrator", loaded, state)
    assert not [name for name in told if "WEBHOOK_URL" in name or "NATS" in name or "LOG_FILE" in name]
    assert "SECBEAT_MANAGEMENT__AUTH_TOKEN_FILE" not in told


def test_without_a_provisioner_the_users_receiver_is_called(tmp_path, state):
    where = planning.Addresses("127.0.0.1:3031", "127.0.0.1:9092", None)
    told = environment("orchestrator", load_text(tmp_path, ""), state, where)
    assert not [name for name in told if "WEBHOOK_URL" in name]


def test_no_secret_is_told_by_environment(tmp_path, state):
    loaded = load_text(tmp_path, "")
    secrets = ensure(state, nats=True)
    texts = [*secrets.tokens.values(), *(path.read_text().strip() for path in state.secrets.glob("*.*[!n]"))]
    told = str(environment("orchestrator", loaded, state)) + str(environment("provisioner", loaded, state))
    assert not [text for text in texts if text in told]


def test_a_wildcard_address_is_dialled_on_loopback(tmp_path):
    where = planning.Addresses("0.0.0.0:3030", "[::]:9091", None)
    found = planning.urls(load_text(tmp_path, ""), where, "nats://x")
    assert (found.orchestrator, found.metrics) == ("http://127.0.0.1:3030", "http://[::1]:9091/metrics")


def test_overrides_of_every_kind_come_through_the_environment(state):
    values = {"pools.web.min": 2, "pools.web.mode": "observe", "orchestrator.allowed_hosts": ["a", "b"]}
    values |= {"management.enabled": False, "blueprints.default.variables.secbeat_node_cpu_allowance": 0.1}
    settings = load(environ=planning.variables(values)).settings
    assert (settings.pools["web"].min, settings.pools["web"].mode) == (2, "observe")
    assert settings.orchestrator.allowed_hosts == ["a", "b"]
    assert settings.management.enabled is False
    assert settings.blueprints["default"].variables == {"secbeat_node_cpu_allowance": 0.1}
