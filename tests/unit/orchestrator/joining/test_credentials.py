"""Master key, tokens, NATS users."""

from __future__ import annotations

import stat
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from orchestrator.joining.credentials import CredentialIssuer, NodeTokens, legacy_token, master_key
from secbeat import ids
from secbeat.errors import ConfigError
from secbeat.settings import ManagementSettings, NatsSettings
from secbeat.settings.model import DEFAULT_MANAGEMENT_TOKEN

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def test_the_master_key_is_made_once_and_kept_private(tmp_path):
    path = tmp_path / "secrets" / "master.key"
    one = master_key(path)
    assert len(one) == 32
    assert master_key(path) == one
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@pytest.mark.parametrize("text", ["abc", "zz" * 32, "00" * 31])
def test_a_damaged_master_key_stops_the_start(tmp_path, text):
    path = tmp_path / "master.key"
    path.write_text(text)
    path.chmod(0o600)
    with pytest.raises(ConfigError) as error:
        master_key(path)
    assert error.value.code == "SECRET_UNREADABLE"


def test_the_published_token_needs_its_switch(tmp_path):
    public, file = SecretStr(DEFAULT_MANAGEMENT_TOKEN), tmp_path / "token"
    file.write_text(DEFAULT_MANAGEMENT_TOKEN)
    file.chmod(0o600)
    with pytest.raises(ConfigError) as error:
        legacy_token(ManagementSettings(auth_token_file=file))
    assert error.value.code == "SECRET_PLACEHOLDER"
    assert legacy_token(ManagementSettings(auth_token=public, allow_default_token=True)) == DEFAULT_MANAGEMENT_TOKEN
    assert legacy_token(ManagementSettings(allow_default_token=True)) == DEFAULT_MANAGEMENT_TOKEN
    assert legacy_token(ManagementSettings()) is None


def test_each_node_has_a_token_of_its_own():
    tokens = NodeTokens(b"k" * 32, None)
    one, two = ids.new_node_id(), ids.new_node_id()
    assert tokens.management(one) != tokens.management(two)
    assert tokens.proves(one, tokens.management(one))
    assert not tokens.proves(one, tokens.management(two))
    assert not tokens.proves(one, "ü")


def test_credentials_have_a_nats_user_where_we_can_make_one_and_say_when_to_renew():
    def mint(node_id, public_key, ttl_seconds, now):
        return f"jwt-{node_id}-{public_key}-{ttl_seconds}-{now}"

    issuer = CredentialIssuer(NodeTokens(b"k" * 32, None), NatsSettings(node_url="nats://10.0.0.1:4222"), mint)
    node_id, key = ids.new_node_id(), "U" + "A" * 55
    facts = {"cluster_id": ids.new_cluster_id(), "epoch": 3, "node_id": node_id, "ttl_seconds": 3600.0, "now": NOW}
    made = issuer.issue(public_key=key, **facts)
    assert made.nats_jwt.get_secret_value() == f"jwt-{node_id}-{key}-3600.0-{NOW.timestamp()}"
    assert (made.renew_before - NOW).total_seconds() == 1800
    assert made.nats_url == "nats://10.0.0.1:4222"
    assert issuer.issue(public_key=None, **facts).nats_jwt is None
    assert "jwt-" not in repr(made)
