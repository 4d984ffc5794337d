from __future__ import annotations

import json
import stat

import pytest

from secbeat import signing
from secbeat.auth import TokenBook
from secbeat.errors import ConfigError
from secbeat.paths import StateDir
from secbeat.up.secrets import SCOPES, ensure


@pytest.fixture
def state(tmp_path):
    return StateDir(tmp_path / "state").ensure()


def test_the_first_start_makes_every_secret_private(state):
    made = ensure(state, nats=True)
    book = TokenBook.load(state.tokens_file)
    assert {scope: book.check(token).scope for scope, token in made.tokens.items()} == {s: s for s in SCOPES}
    assert signing.check_secret(made.webhook_file.read_text().strip())
    assert len(bytes.fromhex((state.secrets / "master.key").read_text().strip())) == 32
    assert made.nats.creds_file("orchestrator").exists()
    files = [path for path in state.secrets.rglob("*") if path.is_file()]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    assert stat.S_IMODE(state.secrets.stat().st_mode) == 0o700


def test_a_second_start_changes_nothing(state):
    ensure(state, nats=True)
    before = {path: path.read_bytes() for path in state.secrets.rglob("*") if path.is_file()}
    ensure(state, nats=True)
    assert {path: path.read_bytes() for path in state.secrets.rglob("*") if path.is_file()} == before


def test_tokens_are_stored_as_hashes_only(state):
    made = ensure(state, nats=False)
    text = state.tokens_file.read_text()
    assert not [token for token in made.tokens.values() if token in text]
    assert made.nats is None


def test_a_lost_token_book_is_made_anew(state):
    ensure(state, nats=False)
    state.tokens_file.unlink()
    made = ensure(state, nats=False)
    assert TokenBook.load(state.tokens_file).check(made.tokens["admin"]) is not None


def test_tokens_of_the_user_stay(state):
    ensure(state, nats=False)
    mine = TokenBook.issue(state.tokens_file, name="me", scope="read")
    (state.secrets / "admin.token").unlink()
    ensure(state, nats=False)
    assert TokenBook.load(state.tokens_file).check(mine).name == "me"


@pytest.mark.parametrize("name", ["admin.token", "webhook.secret", "master.key"])
def test_a_secret_that_others_can_read_stops_the_start(state, name):
    ensure(state, nats=False)
    (state.secrets / name).chmod(0o644)
    with pytest.raises(ConfigError) as caught:
        ensure(state, nats=False)
    assert caught.value.code == "SECRET_UNREADABLE"
    assert name in caught.value.why


def test_the_secrets_are_not_in_their_description(state):
    made = ensure(state, nats=False)
    assert made.tokens["admin"] not in repr(made)
    assert made.tokens["admin"] not in json.dumps([str(made)])
