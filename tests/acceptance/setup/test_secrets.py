"""Tokens and secret files: missing, placeholders, readable by others."""

from __future__ import annotations

import pytest

pytestmark = pytest.mark.slow

PLACEHOLDERS = ["changeme", "$(openssl rand -hex 32)", "${MANAGEMENT_TOKEN}", ""]
# Service, table and key of each secret that is configured as a file.
FILES = [
    ("orchestrator", "orchestrator", "webhook_secret_file"),
    ("orchestrator", "orchestrator", "webhook_bearer_token_file"),
    ("orchestrator", "management", "auth_token_file"),
    ("orchestrator", "nats", "creds_file"),
    ("provisioner", "provisioner", "webhook_secret_file"),
    ("provisioner", "provisioner", "previous_webhook_secret_file"),
    ("provisioner", "provisioner", "service_token_file"),
    ("node", "management", "auth_token_file"),
    ("up", "orchestrator", "webhook_secret_file"),
]


def with_file(setup, table, key):
    """The configuration names a secret file; a token in the configuration itself makes way for it."""
    path = setup.config(f"[{table}]\n{key} = 'the.secret'\n")
    if key == "auth_token_file":
        kept = [line for line in path.read_text().splitlines() if not line.startswith("auth_token =")]
        path.write_text("\n".join(kept))


def test_a_node_without_a_token_is_refused(setup):
    path = setup.config()
    path.write_text(path.read_text().replace("auth_token", "# auth_token"))
    setup.refused("node", "MANAGEMENT_TOKEN_MISSING", "neither auth_token nor auth_token_file", "openssl rand -hex 32")


@pytest.mark.parametrize(
    ("service", "token"),
    [*(("node", token) for token in PLACEHOLDERS), ("orchestrator", "changeme"), ("up", "changeme")],
)
def test_a_placeholder_is_no_token(setup, service, token):
    setup.config(f"[management]\nauth_token = '{token}'\n")
    setup.refused(service, "SECRET_PLACEHOLDER", "management.auth_token", "secbeat.toml", "openssl rand -hex 32")


@pytest.mark.parametrize(
    ("service", "table", "key", "token"),
    [(*which, token) for which, token in zip([FILES[1], FILES[2], FILES[6], FILES[7]], PLACEHOLDERS, strict=True)],
)
def test_a_placeholder_in_a_file_is_no_secret(setup, service, table, key, token):
    with_file(setup, table, key)
    setup.secret("the.secret", token)
    setup.refused(service, "SECRET_PLACEHOLDER", "the.secret", "openssl rand -hex 32")


@pytest.mark.parametrize(("service", "table", "key"), [one for one in FILES if one[2].startswith("webhook_secret")])
def test_a_secret_file_that_is_not_there_is_named(setup, service, table, key):
    with_file(setup, table, key)
    setup.refused(service, "SECRET_UNREADABLE", "the.secret: No such file or directory")


@pytest.mark.parametrize(("service", "table", "key"), FILES)
def test_a_secret_file_that_others_can_read_is_named_with_its_mode(setup, service, table, key):
    with_file(setup, table, key)
    setup.secret("the.secret", "whsec_c2VjcmV0LXNlY3JldC1zZWNyZXQtc2VjcmV0LTEyMzQ=", mode=0o644)
    ended = setup.refused(service, "SECRET_UNREADABLE", "the.secret", "0644", "chmod 600")
    assert "c2VjcmV0" not in ended.stderr


@pytest.mark.parametrize(("service", "table", "key"), [FILES[0], FILES[4]])
def test_a_webhook_secret_that_is_none_is_named(setup, service, table, key):
    with_file(setup, table, key)
    setup.secret("the.secret", "only-a-password-of-somebody")
    ended = setup.refused(service, "SECRET_UNREADABLE", "whsec_")
    assert "only-a-password" not in ended.stderr


def test_a_token_of_up_that_others_can_read_is_named(setup):
    setup.config()
    setup.place.write("state/secrets/admin.token", "abcdefghijklmnop\n", mode=0o644)
    command = [*setup.words("up"), "--state", "state"]
    setup.refused(command, "SECRET_UNREADABLE", "state/secrets/admin.token", "0644", "chmod 600", "remove it")


def test_tokens_that_are_no_json_are_named(setup):
    setup.config("[orchestrator]\nstate_dir = 'state'\n")
    setup.place.write("state/secrets/tokens.json", "{")
    setup.refused("orchestrator", "SECRET_UNREADABLE", "state/secrets/tokens.json")
