"""Core publish and subscribe."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

import nats.errors
from nats.aio.msg import Msg
from nats.aio.subscription import Subscription as Inner

from secbeat.bus.link import Link, reason
from secbeat.store import Unavailable

log = logging.getLogger("bus")


class NatsSubscription:
    """A subscription that can be ended; it outlives reconnects."""

    def __init__(self, link: Link, inner: Inner) -> None:
        self._link, self._inner = link, inner

    async def close(self) -> None:
        self._link.hot.hot.pop(self._inner._id, None)  # noqa: SLF001 - the id is public on the wire only
        try:
            await self._inner.unsubscribe()
        except (nats.errors.Error, OSError):
            log.debug("unsubscribe on a lost connection")


class NatsMessaging:
    """A Messaging."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._answering: set[asyncio.Task[None]] = set()

    @property
    def connected(self) -> bool:
        return self._link.connected

    async def publish(self, subject: str, payload: bytes) -> None:
        await self._link.publish(subject, payload)

    async def subscribe(
        self, subject: str, handler: Callable[[str, bytes], None], *, hot: bool = False
    ) -> NatsSubscription:
        """As the Protocol has it; ``hot`` takes the handler's messages out of nats-py's queueing.

        A hot handler runs inside the reader: what it spends delays every other message of this connection.
        """

        async def on_message(message: Msg) -> None:
            handler(message.subject, message.data)

        if hot:
            # nats-py numbers subscriptions in order; the handler must be known before the first message can come.
            self._link.hot.hot[self._link.client._sid + 1] = handler  # noqa: SLF001
        return await self._subscribe(subject, on_message)

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        return await self._link.request(subject, payload, timeout=timeout_seconds)

    async def respond(self, subject: str, handler: Callable[[str, bytes], Awaitable[bytes]]) -> NatsSubscription:
        async def answer(message: Msg) -> None:
            reply = await handler(message.subject, message.data)
            if message.reply:
                await self._link.publish(message.reply, reply)

        def ended(task: asyncio.Task[None]) -> None:
            self._answering.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("A responder on %s failed", subject, exc_info=error, extra={"action": "responder_failed"})

        async def on_message(message: Msg) -> None:
            # A task each: one slow answer must not hold up the next request.
            task = asyncio.create_task(answer(message), name=f"answer {subject}")
            self._answering.add(task)
            task.add_done_callback(ended)

        return await self._subscribe(subject, on_message)

    async def close(self) -> None:
        """Give up the answers that are still being made."""
        for task in list(self._answering):
            task.cancel()
        await asyncio.gather(*self._answering, return_exceptions=True)

    async def _subscribe(self, subject: str, on_message: Callable[[Msg], Awaitable[None]]) -> NatsSubscription:
        try:
            return NatsSubscription(self._link, await self._link.client.subscribe(subject, cb=on_message))
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS: {reason(error)}") from None
