"""The node's connection to NATS: kept up, replaced when its credentials are renewed, never in the way of traffic."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable
from typing import Protocol

from node.waiting import wait_for
from secbeat.bus import NodeCredentials, connect
from secbeat.clock import Clock
from secbeat.errors import SecbeatError
from secbeat.settings import NatsSettings
from secbeat.store import Messaging, Unavailable

log = logging.getLogger("agent")

_FIRST_WAIT, _LONGEST_WAIT = 1.0, 30.0
Responder = Callable[[str, bytes], Awaitable[bytes]]


class Connection(Protocol):
    """What is used of ``secbeat.bus.Bus``."""

    @property
    def messaging(self) -> Messaging: ...

    async def close(self) -> None: ...


class Connector(Protocol):
    """Opens a connection with the credentials of this moment."""

    async def __call__(self, on_closed: Callable[[], None]) -> Connection: ...


def connector(
    settings: NatsSettings, name: str, access: Callable[[], tuple[str | None, NodeCredentials | None]]
) -> Connector:
    """Connects with ``access()``: the address that the orchestrator gave (else the configured one) and the user."""

    async def opened(on_closed: Callable[[], None]) -> Connection:
        url, credentials = access()
        used = settings.model_copy(update={"url": url}) if url else settings
        return await connect(used, name=name, jetstream=False, credentials=credentials, on_closed=on_closed)

    return opened


class Link:
    """Messaging that comes and goes.

    Args:
        respond: subjects to answer on, asked anew for every connection.
        on_refused: the credentials were not accepted, or are no longer.
        on_connected: a connection stands, for the first time or anew.
    """

    def __init__(
        self,
        open_connection: Connector,
        clock: Clock,
        *,
        respond: Callable[[], tuple[str, Responder] | None] = lambda: None,
        on_refused: Callable[[], None] = lambda: None,
        on_connected: Callable[[], None] = lambda: None,
    ) -> None:
        self._open, self._clock = open_connection, clock
        self._respond, self._on_refused, self._on_connected = respond, on_refused, on_connected
        self._connection: Connection | None = None
        self._attempt: object = None
        self._again = asyncio.Event()
        self._again.set()

    @property
    def connected(self) -> bool:
        """Whether a publish would be sent now."""
        return self._connection is not None and self._connection.messaging.connected

    def renew(self) -> None:
        """Open a fresh connection with the credentials of now; the old one serves until the new one stands."""
        self._again.set()

    async def run(self) -> None:
        """Keep a connection; for ever."""
        wait = _FIRST_WAIT
        while True:
            await self._again.wait()
            self._again.clear()
            try:
                await self._replace()
                wait = _FIRST_WAIT
            except (SecbeatError, Unavailable, OSError) as error:
                log.warning("No NATS: %s", error, extra={"action": "nats_wait"})
                if getattr(error, "code", "") == "NATS_AUTH":
                    self._on_refused()
                if await wait_for(self._again, self._clock, wait * random.uniform(0.5, 1.0)):  # noqa: S311 - jitter
                    wait = _FIRST_WAIT
                wait = min(wait * 2, _LONGEST_WAIT)
                self._again.set()

    async def _replace(self) -> None:
        """Open a fresh connection, then let the old one go: commands are heard all the time."""
        attempt = self._attempt = object()
        fresh = await self._open(lambda: self._closed(attempt))
        try:
            if (wanted := self._respond()) is not None:
                await fresh.messaging.respond(*wanted)
        except BaseException:
            await fresh.close()
            raise
        old, self._connection = self._connection, fresh
        log.info("Connected to NATS", extra={"action": "nats_connected"})
        self._on_connected()
        if old is not None:
            await old.close()

    async def publish(self, subject: str, payload: bytes) -> bool:
        """Send if connected; whether it was sent."""
        if self._connection is None:
            return False
        try:
            await self._connection.messaging.publish(subject, payload)
        except (Unavailable, ValueError) as error:
            log.debug("Not published: %s", error)
            return False
        return self.connected

    async def close(self) -> None:
        """Close the connection; what was published has left."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    def _closed(self, attempt: object) -> None:
        """The connection is gone for good: its token has expired or its user was revoked."""
        if attempt is not self._attempt:
            return  # one that was replaced already
        log.warning("NATS closed the connection for good", extra={"action": "nats_closed"})
        self._on_refused()
        self._again.set()
