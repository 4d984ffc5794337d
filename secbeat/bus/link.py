"""One connection to NATS, with the hazards of nats-py 2.16 handled: the only module that holds its client.

What is done against what (the full list stands in the tests):

- nothing is buffered while disconnected (``pending_size=0``), and what was queued when the connection broke is dropped:
  a write that was reported as failed must not happen later;
- reconnecting never ends, with jitter; a transport that hangs while closing is aborted;
- a frozen server is noticed within two pings;
- an error that closes the client for good calls ``on_closed``; every other asynchronous error is counted.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import nats.errors
from nats.aio.client import Client, Server

from secbeat.bus.parser import HotParser
from secbeat.store import Unavailable

log = logging.getLogger("bus")


@dataclass(frozen=True)
class Timing:
    """Seconds. The defaults notice a frozen server after 6 to 9 s and leave a hanging transport 3 s later."""

    ping: float = 3.0
    pings: int = 2
    stuck: float = 3.0
    reconnect_min: float = 0.25
    reconnect_max: float = 2.0
    call: float = 5.0


class Refused(Exception):
    """JetStream answered with an error; ``code`` is its ``err_code`` (0: it gave none)."""

    def __init__(self, code: int, description: str) -> None:
        super().__init__(description)
        self.code = code


class Link:
    """A connection that mends itself.

    Attributes:
        errors: asynchronous errors by kind (``permission``, ``slow_consumer``, ``handler``, ``closed``, ``other``).
        on_closed: called once when the connection is gone for good and not by :meth:`close`.
    """

    def __init__(self, *, on_closed: Callable[[], None] | None = None, timing: Timing | None = None) -> None:
        self.timing = timing or Timing()
        self.errors: Counter[str] = Counter()
        self.last_error: Exception | None = None
        self.on_closed = on_closed
        self.client = Client()
        self.hot = HotParser(self.client, lambda error: self._count("handler", error))
        self.client._ps = self.hot  # noqa: SLF001 - nats-py has no public way to give it a parser
        self._closing = False
        self._watchdog: asyncio.Task[None] | None = None

    @property
    def connected(self) -> bool:
        """Whether a publish would be sent now."""
        return bool(self.client.is_connected)

    @property
    def server(self) -> dict[str, Any]:
        """What the server said of itself when it greeted us."""
        return dict(self.client._server_info)  # noqa: SLF001 - the public properties leave out `jetstream` and the name

    async def open(self, servers: list[str], **options: Any) -> None:
        """Connect; tries until cancelled. ``options`` are nats-py's for names and credentials."""
        await self.client.connect(
            servers=servers,
            pending_size=0,
            max_reconnect_attempts=-1,
            # Annotated as int, used as seconds for asyncio.sleep.
            reconnect_time_wait=random.uniform(0.1, 0.3),  # type: ignore[arg-type]  # noqa: S311 - jitter
            reconnect_to_server_handler=self._next_server,
            ping_interval=self.timing.ping,  # type: ignore[arg-type]
            max_outstanding_pings=self.timing.pings,
            error_cb=self._on_error,
            disconnected_cb=self._on_disconnected,
            reconnected_cb=self._on_reconnected,
            closed_cb=self._on_closed,
            **options,
        )
        self._watchdog = asyncio.create_task(self._watch(), name="nats-watchdog")

    async def close(self) -> None:
        """Close for good; safe to call twice and before :meth:`open` has succeeded."""
        self._closing = True
        if self._watchdog is not None:
            self._watchdog.cancel()
            with suppress(asyncio.CancelledError):
                await self._watchdog
            self._watchdog = None
        # A hanging transport must not hold up the end of the process.
        try:
            async with asyncio.timeout(self.timing.stuck):
                await self.client.close()
        except TimeoutError:
            self._abort_transport()
        except Exception as error:  # noqa: BLE001 - a half-open client fails in many ways; it is given up anyway
            log.debug("closing: %s", error)

    async def call(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """One JetStream request: a publish to a stream, or a call of its API.

        Raises:
            Refused: JetStream answered with an error.
            Unavailable: not sent, or no answer in time; a publish may have happened.
            ValueError: the payload is larger than the server takes.
        """
        message = await self.request(subject, payload, timeout=timeout or self.timing.call, headers=headers)
        try:
            answer = json.loads(message)
        except ValueError:
            raise Unavailable(f"the answer on {subject} is not JSON") from None
        if (error := answer.get("error")) is not None:
            code = error.get("err_code", 0)
            if error.get("code") == 503:
                raise Unavailable(f"JetStream: {error.get('description')}")
            raise Refused(code, str(error.get("description")))
        return dict(answer)

    async def request(
        self, subject: str, payload: bytes, *, timeout: float, headers: dict[str, str] | None = None
    ) -> bytes:
        """One request, one reply. Raises Unavailable, ValueError."""
        try:
            message = await self.client.request(subject, payload, timeout=timeout, headers=headers)
        except nats.errors.MaxPayloadError:
            raise too_large(subject, payload) from None
        except nats.errors.NoRespondersError:
            raise Unavailable(f"nobody answers on {subject}") from None
        except nats.errors.TimeoutError:
            raise Unavailable(f"no answer on {subject} in {timeout:g} s") from None
        except (nats.errors.Error, OSError, AttributeError) as error:
            # AttributeError: nats-py's maps are gone once it is closed.
            raise Unavailable(f"NATS: {reason(error)}") from None
        return bytes(message.data)

    async def publish(
        self, subject: str, payload: bytes, *, headers: dict[str, str] | None = None, reply: str = ""
    ) -> bool:
        """Send; False when not connected. Raises ValueError for a payload that is too large."""
        if not self.connected:
            return False
        try:
            await self.client.publish(subject, payload, headers=headers, reply=reply)
        except nats.errors.MaxPayloadError:
            raise too_large(subject, payload) from None
        except (nats.errors.Error, OSError):
            return False
        return True

    def _count(self, kind: str, error: Exception) -> None:
        self.errors[kind] += 1
        self.last_error = error
        if self.errors[kind] == 1:
            log.warning("NATS: %s (%s); further ones are counted", error, kind, extra={"action": f"nats_{kind}"})

    async def _on_error(self, error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            self._count("permission", error)
        elif isinstance(error, nats.errors.SlowConsumerError):
            self._count("slow_consumer", error)
        elif isinstance(error, OSError | nats.errors.UnexpectedEOF | nats.errors.StaleConnectionError | TimeoutError):
            self.errors["connection"] += 1
            self.last_error = error
        elif self.client.is_connected and not isinstance(error, nats.errors.Error):
            self._count("handler", error)
        else:
            self.errors["other"] += 1
            self.last_error = error

    async def _on_disconnected(self) -> None:
        # nats-py sends what it had queued after it has reconnected: by then the caller has been told that it failed.
        self.client._pending = []  # noqa: SLF001
        self.client._pending_data_size = 0  # noqa: SLF001
        if not self._closing:
            log.warning("NATS connection lost: %s", self.last_error or "closed", extra={"action": "nats_disconnected"})

    async def _on_reconnected(self) -> None:
        log.info("NATS connection is back", extra={"action": "nats_reconnected"})

    async def _on_closed(self) -> None:
        if self._closing:
            return
        self._closing = True
        last = self.client.last_error or self.last_error
        self._count("closed", Exception(f"the connection is closed for good: {last}"))
        if self.on_closed is not None:
            self.on_closed()

    def _next_server(self, pool: list[Server], _info: dict[str, Any]) -> tuple[Server, float]:
        """The server tried least often lately, after a random wait: a whole fleet reconnects at the same moment."""
        self._abort_transport()  # of the attempt before, which nats-py would leave open
        chosen = min(pool, key=lambda server: (server.reconnects, random.random()))  # noqa: S311 - jitter
        floor = self.timing.reconnect_min if chosen.reconnects else 0.0
        return chosen, random.uniform(floor, self.timing.reconnect_max)  # noqa: S311 - jitter

    async def _watch(self) -> None:
        """Abort a transport that hangs while closing: nats-py waits for it without an end (nats-io/nats.py#671)."""
        loop = asyncio.get_running_loop()
        healthy: Any = None
        since = loop.time()
        while True:
            await asyncio.sleep(self.timing.stuck / 6)
            writer = getattr(self.client._transport, "_io_writer", None)  # noqa: SLF001
            if not self.client.is_reconnecting:
                healthy, since = writer, loop.time()
            elif writer is not None and writer is healthy and loop.time() - since > self.timing.stuck:
                log.warning("NATS transport hangs: aborted", extra={"action": "nats_aborted"})
                self.errors["aborted"] += 1
                self._abort_transport()
                healthy = None

    def _abort_transport(self) -> None:
        writer = getattr(self.client._transport, "_io_writer", None)  # noqa: SLF001
        if writer is not None:
            writer.transport.abort()


def reason(error: BaseException) -> str:
    """What an error says, or its kind when it says nothing (as many of nats-py's)."""
    return str(error) or type(error).__name__


def too_large(subject: str, payload: bytes) -> ValueError:
    """The refusal of a payload that the server would answer by closing the connection."""
    return ValueError(f"{len(payload)} bytes for {subject} are more than the NATS server takes")
