"""NATS's tokens: JSON claims signed with Ed25519 keys in NATS's own spelling ("nkeys").

Only what this program issues; reading is for display and naming, the server alone verifies.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from typing import Any

import nkeys

from secbeat.errors import ConfigError

OPERATOR, ACCOUNT, USER = nkeys.PREFIX_BYTE_OPERATOR, nkeys.PREFIX_BYTE_ACCOUNT, nkeys.PREFIX_BYTE_USER
_HEADER = {"typ": "JWT", "alg": "ed25519-nkey"}


def new_keys(prefix: int) -> tuple[str, str]:
    """A fresh key pair of a kind (OPERATOR, ACCOUNT or USER): seed, public key."""
    seed = nkeys.encode_seed(os.urandom(32), prefix).decode()
    return seed, public_key(seed)


def public_key(seed: str) -> str:
    """The public key of a seed.

    Raises:
        ConfigError: not a seed (SECRET_UNREADABLE); the message does not repeat it.
    """
    return str(_pair(seed).public_key.decode())


def sign_nonce(seed: str, nonce: str) -> bytes:
    """The answer to the server's challenge, as nats-py sends it."""
    return base64.b64encode(_pair(seed).sign(nonce.encode()))


def issue(
    issuer_seed: str, *, subject: str, name: str, claims: dict[str, Any], iat: int, exp: int | None = None
) -> str:
    """A signed token over ``claims`` (the part under ``nats``).

    Args:
        issuer_seed: the seed of the key that signs.
        subject: the public key that the token speaks for.
        name: shown in the server's monitoring.
        claims: type and permissions.
        iat: issue time, seconds since the epoch.
        exp: end, seconds since the epoch; None: none.
    """
    pair = _pair(issuer_seed)
    body: dict[str, Any] = {"iat": iat, "iss": pair.public_key.decode(), "name": name, "sub": subject}
    if exp is not None:
        body["exp"] = exp
    body["nats"] = {**claims, "version": 2}
    digest = hashlib.sha256(_json(body)).digest()
    body["jti"] = base64.b32encode(digest).decode().rstrip("=")
    text = f"{_encode(_json(_HEADER))}.{_encode(_json(body))}"
    return f"{text}.{_encode(pair.sign(text.encode()))}"


def claims_of(token: str) -> dict[str, Any]:
    """The claims of a token, *not verified*; empty when it is none."""
    try:
        body = token.split(".")[1]
        claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    except (IndexError, ValueError):
        return {}
    return claims if isinstance(claims, dict) else {}


def creds(token: str, seed: str) -> str:
    """A user's token and seed in the file form that every NATS client reads."""
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    )


def parse_creds(text: str) -> tuple[str, str]:
    """Token and seed of a creds file's text.

    Raises:
        ValueError: it has no token or no seed.
    """
    lines = [line.strip() for line in text.splitlines()]
    found = {}
    for kind in ("NATS USER JWT", "USER NKEY SEED"):
        try:
            found[kind] = lines[next(i for i, line in enumerate(lines) if f"BEGIN {kind}" in line) + 1]
        except (StopIteration, IndexError):
            raise ValueError(f"no {kind} in it") from None
    return found["NATS USER JWT"], found["USER NKEY SEED"]


def _pair(seed: str) -> Any:
    try:
        return nkeys.from_seed(bytearray(seed.strip().encode()))
    except Exception:  # noqa: BLE001 - nkeys raises a dozen kinds, and its messages must not carry the seed onward
        raise ConfigError("SECRET_UNREADABLE", why="a NATS seed is malformed") from None


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")
