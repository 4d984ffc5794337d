"""Checks of what should answer: NATS, orchestrator, provisioner, and whose clock is wrong."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from secbeat.cli.client import Client
from secbeat.cli.doctor.environment import parse_version
from secbeat.cli.doctor.finding import Finding, Status
from secbeat.cli.finding import Target
from secbeat.cli.redaction import redact_text
from secbeat.errors import SecbeatError, UnreachableError

if TYPE_CHECKING:
    from secbeat.settings import NatsSettings

_MINIMUM_NATS = (2, 12, 6)
_SKEW_WARN, _SKEW_FAIL = 5.0, 30.0
_SECONDS = 3.0


def nats(settings: NatsSettings, *, expected: bool, monitor: str | None = None) -> Iterator[Finding]:
    """NATS: reachable, new enough, with JetStream, safe to disk, and the login accepted.

    Args:
        settings: where it should be.
        expected: whether it should run now; otherwise its absence is no failure.
        monitor: the address of its monitoring port; None: the usual one, 8222.
    """
    answered = False
    for url in settings.url.split(","):
        try:
            info = _info(url.strip())
        except (OSError, ValueError) as error:
            status: Status = "fail" if expected else "skip"
            remedy = "Start it: nats-server -js   (or let 'secbeat up' start one)" if expected else ""
            yield Finding("nats", "reachable", status, f"{redact_text(url)}: {_reason(error)}", remedy)
            continue
        answered = True
        yield Finding("nats", "reachable", "ok", f"{redact_text(url)}, version {info.get('version')}")
        yield from _abilities(url.strip(), info, monitor)
    if answered:
        yield _login(settings)


def _info(url: str) -> dict[str, Any]:
    """What the server says of itself in its first line."""
    parts = urlsplit(url if "//" in url else f"nats://{url}")
    address = (parts.hostname or "127.0.0.1", parts.port or 4222)
    with socket.create_connection(address, timeout=_SECONDS) as sock, sock.makefile("rb") as lines:
        line = lines.readline(1 << 16)
    verb, _, body = line.partition(b" ")
    if verb != b"INFO":
        raise ValueError("what listens there is not NATS")
    info = json.loads(body)
    if not isinstance(info, dict):
        raise ValueError("what listens there is not NATS")  # noqa: TRY004 - the same finding as above
    return info


def _abilities(url: str, info: dict[str, Any], monitor: str | None) -> Iterator[Finding]:
    version = parse_version(str(info.get("version", "")))
    if version is None or version < _MINIMUM_NATS:
        yield Finding(
            "nats", "version", "fail", f"{info.get('version')} is too old", "Install nats-server 2.12.6 or newer"
        )
    if not info.get("jetstream"):
        yield Finding(
            "nats", "jetstream", "fail", "the server runs without JetStream", "Start it with: nats-server -js"
        )
        return
    yield Finding("nats", "jetstream", "ok", "on")
    host = urlsplit(url if "//" in url else f"nats://{url}").hostname or "127.0.0.1"
    yield _sync(monitor or f"http://{host}:8222")


def _sync(monitor: str) -> Finding:
    """Whether an acknowledged write is on the disk; only the monitoring port tells."""
    try:
        found = Client(Target("orchestrator", monitor, None, "the default")).get("varz")
        always = found["jetstream"]["config"].get("sync_always", False)  # left out when false
    except (SecbeatError, KeyError, TypeError, AttributeError):
        detail = f"the monitoring port {monitor} does not answer, so this could not be checked"
        return Finding("nats", "sync", "skip", detail)
    if always is True:
        return Finding("nats", "sync", "ok", "every acknowledged write is on the disk")
    detail = "acknowledged writes reach the disk up to two minutes later: a power cut loses them"
    return Finding("nats", "sync", "warn", detail, "Set in its configuration: jetstream { sync_interval: always }")


def _login(settings: NatsSettings) -> Finding:
    import asyncio
    import logging

    logging.disable(logging.CRITICAL)  # what the adapter logs at a connection is said by the lines of the doctor
    try:
        from secbeat import bus

        async def connect() -> None:
            async with asyncio.timeout(settings.connect_timeout_seconds + _SECONDS):
                await (await bus.connect(settings, name="doctor")).close()

        asyncio.run(connect())
    except SecbeatError as error:
        return Finding("nats", "login", "fail", f"{error.code}: {redact_text(error.why)}", error.fix)
    except TimeoutError:
        return Finding("nats", "login", "fail", "the server accepted the connection and then said nothing",
                       "Restart it, and read its log")  # fmt: skip
    finally:
        logging.disable(logging.NOTSET)
    return Finding("nats", "login", "ok", "accepted")


def service(target: Target, *, expected: bool) -> Iterator[Finding]:
    """One of our services: answers, is ready, and its clock agrees with ours."""
    group, client = "services", Client(target)
    try:
        with client.open("GET", "/healthz") as response:
            response.read()
            date = response.getheader("Date")
    except UnreachableError as error:
        if expected or target.source != "the default":
            yield Finding(group, target.service, "fail", error.why, error.fix)
        else:
            yield Finding(group, target.service, "skip", f"does not run at {target.url}; start it: secbeat up")
        return
    except SecbeatError as error:
        yield Finding(group, target.service, "fail", error.why, error.fix)
        return
    yield _ready(client)
    if date:
        yield skew(target.service, date, datetime.now(UTC))


def _ready(client: Client) -> Finding:
    name = client.target.service
    try:
        client.get("readyz")
    except SecbeatError:
        remedy = f"See what it waits for: curl -s '{client.target.url}/readyz?verbose'"
        return Finding("services", name, "fail", f"{client.target.url} answers, but is not ready", remedy)
    return Finding("services", name, "ok", f"{client.target.url} is ready")


def skew(name: str, date: str, now: datetime) -> Finding:
    """Compare an HTTP ``Date`` (whole seconds) with our clock."""
    try:
        seconds = abs((parsedate_to_datetime(date) - now).total_seconds())
    except (TypeError, ValueError):
        return Finding("services", f"clock of {name}", "skip", f"its Date header is {date[:40]!r}")
    detail = f"{seconds:.0f} s apart from this machine's"
    if seconds > _SKEW_FAIL:
        return Finding("services", f"clock of {name}", "fail", detail, "Synchronise both: timedatectl set-ntp true")
    if seconds > _SKEW_WARN:
        return Finding("services", f"clock of {name}", "warn", detail, "Synchronise both: timedatectl set-ntp true")
    return Finding("services", f"clock of {name}", "ok", "agrees with this machine's")


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
