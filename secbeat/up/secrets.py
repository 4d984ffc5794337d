"""The secrets of an instance: made once, 0600 in the state directory, never shown."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

from secbeat import signing
from secbeat.auth import Scope, TokenBook, new_token, read_secret, write_secret
from secbeat.bus import identity as identities
from secbeat.errors import ConfigError
from secbeat.paths import StateDir

SCOPES: tuple[Scope, ...] = get_args(Scope)


@dataclass(frozen=True, slots=True)
class Secrets:
    """Where the secrets of an instance lie; ``tokens`` are the API tokens by scope."""

    directory: Path
    tokens: Mapping[Scope, str] = field(repr=False)
    nats: identities.Identity | None

    def token_file(self, scope: Scope) -> Path:
        return self.directory / f"{scope}.token"

    @property
    def webhook_file(self) -> Path:
        return self.directory / "webhook.secret"

    @property
    def management_file(self) -> Path:
        """The token of nodes that a person starts without a join file."""
        return self.directory / "management.token"


def ensure(state: StateDir, *, nats: bool) -> Secrets:
    """Make what is missing, keep what is there.

    Args:
        state: the locked state directory.
        nats: whether the embedded NATS server, and so an identity for it, is used.

    Raises:
        ConfigError: STATE_NOT_WRITABLE, SECRET_UNREADABLE, SECRET_PLACEHOLDER.
    """
    directory = state.secrets
    _once(directory / "master.key", lambda: secrets.token_hex(32))
    _once(directory / "webhook.secret", signing.new_secret)
    _once(directory / "management.token", new_token)
    tokens = {scope: _api_token(state, scope) for scope in SCOPES}
    return Secrets(directory, tokens, identities.create(directory / "nats") if nats else None)


def _once(path: Path, make: Callable[[], str]) -> None:
    if path.exists():
        read_secret(path)
    else:
        write_secret(path, f"{make()}\n")


def _api_token(state: StateDir, scope: Scope) -> str:
    path = state.secrets / f"{scope}.token"
    try:
        token = read_secret(path) if path.exists() else ""
    except ConfigError as error:
        raise ConfigError(error.code, why=error.why, fix=f"{error.fix}, or remove it: {path}") from None
    # A token that the book does not know is of no use: a lost tokens.json, or a start that was killed in between.
    if not token or TokenBook.load(state.tokens_file).check(token) is None:
        token = TokenBook.issue(state.tokens_file, name=scope, scope=scope)
        write_secret(path, f"{token}\n")
    return token
