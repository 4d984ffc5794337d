"""What a node gets when it joins: a management token, and a NATS user of its own."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from pydantic import SecretStr

from secbeat.auth import derive_token, read_secret, write_secret
from secbeat.errors import ConfigError
from secbeat.settings import ManagementSettings, NatsSettings
from secbeat.settings.model import DEFAULT_MANAGEMENT_TOKEN
from secbeat.wire.nodes import NodeRecord
from secbeat.wire.registration import Credentials

_KEY_BYTES = 32


class Minter(Protocol):
    """Makes the token of a node's NATS user; ``secbeat.bus.identity.mint_node_user`` bound to the issuer."""

    def __call__(self, node_id: str, public_key: str, ttl_seconds: float, now: float) -> str: ...


def master_key(path: Path) -> bytes:
    """The cluster's master key; made at the first start.

    Raises:
        ConfigError: it cannot be read, is not 64 hex digits, or cannot be written.
    """
    if not path.exists():
        write_secret(path, secrets.token_hex(_KEY_BYTES) + "\n")
    text = read_secret(path)
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != _KEY_BYTES:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path} does not hold {_KEY_BYTES * 2} hex digits")
    return key


def legacy_token(management: ManagementSettings) -> str | None:
    """The token of nodes that registered in the original's form: that of our own ``[management]`` table.

    Raises:
        ConfigError: the published token without ``allow_default_token``, or an unreadable file.
    """
    token: str | None = None
    if management.auth_token is not None:
        token = management.auth_token.get_secret_value()
    elif management.auth_token_file is not None:
        token = read_secret(management.auth_token_file)
    elif management.allow_default_token:
        token = DEFAULT_MANAGEMENT_TOKEN
    if token == DEFAULT_MANAGEMENT_TOKEN and not management.allow_default_token:
        raise ConfigError(
            "SECRET_PLACEHOLDER",
            why="management.auth_token is the token that the guide prints: anyone knows it",
            fix="openssl rand -hex 32   (or knowingly: [management] allow_default_token = true)",
        )
    return token


@dataclass(frozen=True)
class NodeTokens:
    """The token with which a node is called. A joined node's is derived and stored nowhere."""

    master: bytes
    legacy: str | None

    def of(self, node: NodeRecord) -> str | None:
        """The token of ``node``; None: it is legacy and no token is configured."""
        return self.legacy if node.legacy else self.management(node.node_id)

    def management(self, node_id: str) -> str:
        """The token of a node that joined with a secret."""
        return derive_token(self.master, "management", node_id)

    def proves(self, node_id: str, token: str) -> bool:
        """Whether ``token`` is that node's; constant time."""
        return hmac.compare_digest(self.management(node_id).encode(), token.encode())


@dataclass(frozen=True)
class CredentialIssuer:
    """Makes the ``credentials`` object of a registration's answer. ``mint`` None: NATS is open, nodes need no user."""

    tokens: NodeTokens
    nats: NatsSettings
    mint: Minter | None = None

    def issue(
        self, *, cluster_id: str, epoch: int, node_id: str, public_key: str | None, ttl_seconds: float, now: datetime
    ) -> Credentials:
        """Fresh credentials; asking again renews them."""
        jwt: SecretStr | None = None
        renew: datetime | None = None
        if self.mint is not None and public_key is not None:
            jwt = SecretStr(self.mint(node_id, public_key, ttl_seconds, now.timestamp()))
            renew = now + timedelta(seconds=ttl_seconds / 2)
        return Credentials(
            cluster_id=cluster_id,
            epoch=epoch,
            management_token=SecretStr(self.tokens.management(node_id)),
            nats_url=self.nats.node_url or self.nats.url,
            nats_jwt=jwt,
            renew_before=renew,
        )
