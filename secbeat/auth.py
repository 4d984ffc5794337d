"""Bearer tokens and secret files.

Tokens are random, stored as SHA-256, compared in constant time. A node's management token is not stored at all: it is
derived from the cluster's master key, so that a restart, a restore or a second orchestrator finds the same one.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import math
import os
import re
import secrets
import stat
import tempfile
from collections import OrderedDict
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Network, ip_address
from pathlib import Path
from typing import Any, Literal, get_args

from secbeat.clock import Clock, SystemClock
from secbeat.errors import ConfigError
from secbeat.settings.model import is_placeholder

Scope = Literal["read", "operate", "admin", "service"]
_GRANTS: dict[Scope, frozenset[Scope]] = {
    "read": frozenset({"read"}),
    "operate": frozenset({"read", "operate"}),
    "admin": frozenset({"read", "operate", "admin", "service"}),
    "service": frozenset({"service"}),
}
_REMEMBERED = 10_000
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True)
class Principal:
    """Who calls."""

    name: str
    scope: Scope

    def may(self, scope: Scope) -> bool:
        """Whether this caller's scope includes ``scope``."""
        return scope in _GRANTS[self.scope]


def new_token() -> str:
    """32 random bytes, URL-safe."""
    return secrets.token_urlsafe(32)


def hash_token(token: str) -> str:
    """SHA-256, hex. The tokens are random, so no slow hash is needed."""
    # A header's stray bytes come in as lone surrogates: a wrong token, not a failure.
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()


def token_matches(token: str, hashed: str) -> bool:
    """Constant-time comparison with a stored hash."""
    return hmac.compare_digest(hash_token(token), hashed)


def derive_token(master_key: bytes, *parts: str) -> str:
    """A token that whoever holds ``master_key`` can derive again from the same parts (HKDF, RFC 5869)."""
    info = b"\0".join(part.encode() for part in ("secbeat", *parts))
    return hkdf(master_key, info).hex()


def hkdf(key: bytes, info: bytes) -> bytes:
    """32 bytes of HKDF-SHA256 without salt (RFC 5869); written out: ``cryptography`` costs six megabytes to import."""
    extracted = hmac.digest(bytes(32), key, "sha256")
    return hmac.digest(extracted, info + b"\1", "sha256")  # one block of output is all of the expansion


@dataclass(frozen=True, slots=True)
class _Token:
    name: str
    scope: Scope
    sha256: str
    not_after: float | None = None


def _token(row: Any) -> _Token:
    """A row of the file, checked: whatever is wrong in it shows at the start, not at a request."""
    if not isinstance(row, dict) or not all(isinstance(row.get(key), str) for key in ("name", "scope", "sha256")):
        raise ValueError("a token lacks name, scope or sha256")
    if not _SHA256.fullmatch(row["sha256"]):
        raise ValueError(f"{row['name']}: sha256 is not a SHA-256")
    if not isinstance(row.get("not_after"), int | float | None):
        raise ValueError(f"{row['name']}: not_after is not a time")  # noqa: TRY004 - one kind for all that is malformed
    return _Token(**row)


class TokenBook:
    """The API tokens of one service: hashes with a name, a scope and, during a rotation, an end."""

    def __init__(self, tokens: list[_Token], *, clock: Clock | None = None) -> None:
        self.tokens = tuple(tokens)
        self._clock = clock or SystemClock()

    @classmethod
    def load(cls, path: Path, *, clock: Clock | None = None) -> TokenBook:
        """Read a tokens file; an absent one holds no tokens.

        Raises:
            ConfigError: unreadable or malformed (SECRET_UNREADABLE).
        """
        try:
            tokens = [_token(row) for row in json.loads(path.read_text())["tokens"]]
        except FileNotFoundError:
            tokens = []
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise ConfigError("SECRET_UNREADABLE", why=f"{path}: {error}") from None
        if bad := [token.name for token in tokens if token.scope not in get_args(Scope)]:
            raise ConfigError("SECRET_UNREADABLE", why=f"{path}: unknown scope of {', '.join(bad)}")
        return cls(tokens, clock=clock)

    @staticmethod
    def issue(path: Path, *, name: str, scope: Scope) -> str:
        """Make a token, add its hash to the file, return the token itself (shown once)."""
        token = new_token()
        book = TokenBook.load(path)
        rows = [{"name": t.name, "scope": t.scope, "sha256": t.sha256, "not_after": t.not_after} for t in book.tokens]
        rows.append({"name": name, "scope": scope, "sha256": hash_token(token), "not_after": None})
        write_secret(path, json.dumps({"v": 1, "tokens": rows}, indent=2) + "\n")
        return token

    def check(self, token: str) -> Principal | None:
        """The caller that holds ``token``, or None. Every stored hash is compared: no early return."""
        now = self._clock.now().timestamp()
        hashed = hash_token(token)
        found: Principal | None = None
        for known in self.tokens:
            if hmac.compare_digest(known.sha256, hashed) and (known.not_after is None or now < known.not_after):
                found = Principal(known.name, known.scope)
        return found


class FailureLimiter:
    """At most ``limit`` failed logins per address in ``window_seconds``; remembers the newest 10,000 addresses.

    An IPv6 address counts with all of its /64: whoever has one address of a network has them all.
    """

    def __init__(self, *, limit: int = 20, window_seconds: float = 60.0, clock: Clock | None = None) -> None:
        self._limit, self._window = limit, window_seconds
        self._clock = clock or SystemClock()
        self._failures: OrderedDict[str, tuple[float, int]] = OrderedDict()

    def blocked(self, address: str) -> bool:
        """Whether ``address`` has failed too often lately."""
        since, count = self._failures.get(_network(address), (0.0, 0))
        return count >= self._limit and self._clock.monotonic() - since < self._window

    def retry_after(self, address: str) -> int:
        """Seconds until ``address`` may try again; at least one."""
        since, _ = self._failures.get(_network(address), (0.0, 0))
        return max(1, math.ceil(since + self._window - self._clock.monotonic()))

    def failed(self, address: str) -> None:
        """Record a failure."""
        now, key = self._clock.monotonic(), _network(address)
        since, count = self._failures.pop(key, (now, 0))
        self._failures[key] = (since, count + 1) if now - since < self._window else (now, 1)
        if len(self._failures) > _REMEMBERED:
            self._failures.popitem(last=False)

    def succeeded(self, address: str) -> None:
        """Forget the failures of ``address``."""
        if self._failures:
            self._failures.pop(_network(address), None)

    @property
    def remembered(self) -> int:
        """Addresses in memory."""
        return len(self._failures)


def _network(address: str) -> str:
    try:
        parsed = ip_address(address)
    except ValueError:
        return address
    if isinstance(parsed, IPv4Address):
        return address
    mapped = parsed.ipv4_mapped
    return str(mapped or IPv6Network((int(parsed), 64), strict=False))


def read_secret(path: Path) -> str:
    """The text of a secret file, stripped.

    Raises:
        ConfigError: missing or readable by group or others (SECRET_UNREADABLE), empty or a placeholder
            (SECRET_PLACEHOLDER).
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text().strip()
    except OSError as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: not text") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError("SECRET_UNREADABLE", why=f"{path} has mode {stat.S_IMODE(mode):04o}", fix=f"chmod 600 {path}")
    if is_placeholder(text):
        raise ConfigError("SECRET_PLACEHOLDER", why=f"{path} holds {text[:20]!r}")
    return text


def write_secret(path: Path, text: str) -> None:
    """Write a 0600 file in one step; a missing parent directory is made 0700.

    Raises:
        ConfigError: the directory cannot be written (STATE_NOT_WRITABLE).
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp makes it 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(text)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
    except OSError as error:
        raise ConfigError("STATE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
