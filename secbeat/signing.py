"""Standard Webhooks 1.0.0 (https://github.com/standard-webhooks/standard-webhooks): signed requests.

Written here with ``hmac``, because the reference package brings an HTTP client of its own into every installation;
a test holds the two together.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import secrets
from collections.abc import Mapping, Sequence

from secbeat.errors import AuthError

_PREFIX = "whsec_"


def new_secret() -> str:
    """A fresh signing secret: 32 random bytes, base64, with the standard's prefix."""
    return _PREFIX + base64.b64encode(secrets.token_bytes(32)).decode()


def check_secret(secret: str) -> str:
    """Return ``secret`` if it can sign, else raise ValueError: base64 of 24 to 64 bytes behind ``whsec_``."""
    _key(secret)
    return secret


def _key(secret: str) -> bytes:
    if not secret.startswith(_PREFIX):
        raise ValueError("a webhook secret starts with whsec_")
    try:
        key = base64.b64decode(secret.removeprefix(_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError("a webhook secret is base64 behind whsec_") from None
    if not 24 <= len(key) <= 64:
        raise ValueError("a webhook secret has 24 to 64 bytes")
    return key


def sign(secret: str, *, msg_id: str, timestamp: int, body: bytes) -> str:
    """The value of ``webhook-signature`` over the raw body."""
    text = f"{msg_id}.{timestamp}.".encode() + body
    return "v1," + base64.b64encode(hmac.digest(_key(secret), text, hashlib.sha256)).decode()


def headers(secret: str, *, msg_id: str, timestamp: int, body: bytes) -> dict[str, str]:
    """The three headers of a signed request."""
    return {
        "webhook-id": msg_id,
        "webhook-timestamp": str(timestamp),
        "webhook-signature": sign(secret, msg_id=msg_id, timestamp=timestamp, body=body),
    }


def is_signed(headers: Mapping[str, str]) -> bool:
    """Whether the request claims to be signed; a claim that fails is refused, never taken for an unsigned one."""
    return any(name.lower().startswith("webhook-") for name in headers)


def verify(secrets: Sequence[str], headers: Mapping[str, str], body: bytes, *, now: float, tolerance: float) -> str:
    """Check a request's signature on its raw body.

    Args:
        secrets: those valid now; two during a rotation.
        headers: the request's; looked up without regard to case.
        now: seconds since the epoch.
        tolerance: accepted skew, seconds, both ways.

    Returns:
        The ``webhook-id``, the request's idempotency key.

    Raises:
        AuthError: SIGNATURE_MISSING, SIGNATURE_EXPIRED or SIGNATURE_INVALID.
    """
    lower = {name.lower(): value for name, value in headers.items()}
    try:
        msg_id, stamp, given = (lower[f"webhook-{part}"] for part in ("id", "timestamp", "signature"))
    except KeyError as missing:
        raise AuthError("SIGNATURE_MISSING", why=f"header {missing} is absent") from None
    if not stamp.isascii() or not stamp.isdigit() or len(stamp) > 12:
        raise AuthError("SIGNATURE_INVALID", why="webhook-timestamp is not a number of seconds")
    if abs(now - int(stamp)) > tolerance:
        raise AuthError("SIGNATURE_EXPIRED", why=f"the request's clock is {now - int(stamp):+.0f} s off ours")
    # ASCII only: a header's stray bytes come in as lone surrogates, which cannot be encoded.
    if not msg_id or not msg_id.isascii() or "." in msg_id or len(msg_id) > 256:
        raise AuthError("SIGNATURE_INVALID", why="webhook-id is empty, too long, not ASCII or has a dot in it")
    if not given.isascii():
        raise AuthError("SIGNATURE_INVALID", why="webhook-signature is not ASCII")
    expected = [sign(secret, msg_id=msg_id, timestamp=int(stamp), body=body).encode() for secret in secrets]
    candidates = [part.encode() for part in given.split(" ")[:16]]
    # No early return: the time taken must not tell which secret or candidate came close.
    matches = [hmac.compare_digest(one, two) for one in expected for two in candidates]
    if not any(matches):
        raise AuthError("SIGNATURE_INVALID", why="the signature does not match the body")
    return msg_id
