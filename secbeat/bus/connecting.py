"""The first connection: credentials, what the server must be, and a sentence for everything that can be wrong."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats.errors

from secbeat.auth import read_secret
from secbeat.bus import jwt
from secbeat.bus._http import get_json
from secbeat.bus.link import Link, Refused, Timing
from secbeat.bus.server import NAME_PREFIX
from secbeat.errors import ConfigError
from secbeat.settings import NatsSettings
from secbeat.store import Unavailable

log = logging.getLogger("bus")

_FLOOR = (2, 12, 6)
_MONITORING_PORT = 8222


@dataclass(frozen=True)
class NodeCredentials:
    """A NATS user: the token that the orchestrator gave, and the seed of the node's own key."""

    token: str
    seed: str

    def __repr__(self) -> str:
        return f"NodeCredentials({jwt.claims_of(self.token).get('name')!r})"


async def open_link(
    settings: NatsSettings,
    *,
    name: str,
    jetstream: bool,
    credentials: NodeCredentials | None,
    on_closed: Callable[[], None] | None,
    timing: Timing | None,
) -> Link:
    """A connected link to a server that is good enough.

    Raises:
        ConfigError: NATS_UNREACHABLE, NATS_AUTH, NATS_TOO_OLD, NATS_NO_JETSTREAM, SECRET_UNREADABLE.
    """
    if credentials is None and settings.creds_file is not None:
        credentials = _read_creds(settings.creds_file)
    link = Link(on_closed=on_closed, timing=timing)
    try:
        await _open(link, settings, name, credentials)
        check_version(str(link.server.get("version", "0")), settings.url)
        if jetstream:
            await _check_jetstream(link, settings)
    except BaseException:
        await link.close()
        raise
    return link


def _read_creds(path: Path) -> NodeCredentials:
    try:
        return NodeCredentials(*jwt.parse_creds(read_secret(path)))
    except ValueError as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: {error}") from None


async def _open(link: Link, settings: NatsSettings, name: str, credentials: NodeCredentials | None) -> None:
    servers = [server.strip() for server in settings.url.split(",") if server.strip()]
    user = str(jwt.claims_of(credentials.token).get("name", "")) if credentials else ""
    options: dict[str, Any] = {
        "name": name,
        # A private prefix: whoever may subscribe to _INBOX.> reads everybody's replies.
        "inbox_prefix": f"_INBOX.{user or _subject_token(name)}.{secrets.token_hex(4)}",
    }
    if credentials is not None:
        token, seed = credentials.token, credentials.seed
        jwt.public_key(seed)  # a malformed seed is refused here; nats-py would retry it as a network error
        options["user_jwt_cb"] = lambda: bytearray(token.encode())
        options["signature_cb"] = lambda nonce: jwt.sign_nonce(seed, nonce)
    attempt = asyncio.ensure_future(link.open(servers, **options))
    try:
        async with asyncio.timeout(settings.connect_timeout_seconds):
            while not attempt.done():
                await asyncio.wait({attempt}, timeout=0.05)
                if _refused(link.last_error):
                    raise ConfigError("NATS_AUTH", why=f"{settings.url}: {link.last_error}")
            await attempt
    except TimeoutError:
        why = link.last_error or "no answer"
        raise ConfigError("NATS_UNREACHABLE", why=f"{settings.url}: {_plain(why)}") from None
    except nats.errors.Error as error:
        raise ConfigError("NATS_UNREACHABLE", why=f"{settings.url}: {error}") from None
    finally:
        if not attempt.done():
            attempt.cancel()
            await asyncio.wait({attempt}, timeout=1.0)


def _refused(error: Exception | None) -> bool:
    return "authorization" in str(error or "").lower() or "authentication" in str(error or "").lower()


def _plain(error: object) -> str:
    # asyncio puts its own words in the place of the system's.
    number = getattr(error, "errno", None)
    return os.strerror(number) if number else str(error) or type(error).__name__


def _subject_token(name: str) -> str:
    return "".join(c if c.isalnum() or c in "-_" else "-" for c in name) or "client"


def check_version(version: str, url: str) -> None:
    """Refuse a server below 2.12.6.

    Raises:
        ConfigError: NATS_TOO_OLD.
    """
    numbers = tuple(int(part) if part.isdigit() else 0 for part in version.split("-", 1)[0].split(".")[:3])
    if numbers < _FLOOR:
        raise ConfigError("NATS_TOO_OLD", why=f"the server at {url} is version {version}")


async def _check_jetstream(link: Link, settings: NatsSettings) -> None:
    try:
        await link.call("$JS.API.INFO", b"")
    except Refused as error:
        raise ConfigError("NATS_NO_JETSTREAM", why=f"{settings.url}: {error}") from None
    except Unavailable as error:
        if not link.server.get("jetstream") or "nobody answers" in str(error):
            raise ConfigError("NATS_NO_JETSTREAM", why=f"the server at {settings.url} has no JetStream") from None
        raise ConfigError("NATS_UNREACHABLE", why=f"{settings.url}: JetStream gives no answer ({error})") from None
    if not await _syncs_always(link):
        log.warning(
            "Cannot establish that NATS writes to the disk before it confirms: a power cut may lose the last two "
            "minutes of state. Set jetstream { sync_interval: always } in the server's configuration",
            extra={"action": "nats_sync_unknown"},
        )


async def _syncs_always(link: Link) -> bool:
    """Whether the server is known to fsync each write; its monitoring port tells, if it has one where we look."""
    server = link.server
    if str(server.get("server_name", "")).startswith(NAME_PREFIX):
        return True
    url = link.client.connected_url
    try:
        seen = await get_json((url and url.hostname) or "127.0.0.1", _MONITORING_PORT, "/varz")
        return bool(seen["server_id"] == server["server_id"] and seen["jetstream"]["config"]["sync_always"])
    except (OSError, KeyError, TypeError):
        return False
