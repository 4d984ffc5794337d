"""Publish and subscribe in memory: every client on one exchange hears the others."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from secbeat.store import Unavailable

_Handler = Callable[[str, bytes], None]
_Responder = Callable[[str, bytes], Awaitable[bytes]]


def matches(pattern: str, subject: str) -> bool:
    """Whether a NATS pattern (``*`` one token, ``>`` one or more at the end) covers a subject."""
    wanted, given = pattern.split("."), subject.split(".")
    for place, part in enumerate(wanted):
        if part == ">":
            return len(given) > place
        if place >= len(given) or part not in ("*", given[place]):
            return False
    return len(wanted) == len(given)


class _Subscription:
    def __init__(
        self, owner: MemoryMessaging, pattern: str, handler: _Handler | None, responder: _Responder | None
    ) -> None:
        self.owner, self.pattern, self.handler, self.responder = owner, pattern, handler, responder
        owner.exchange.append(self)

    async def close(self) -> None:
        if self in self.owner.exchange:
            self.owner.exchange.remove(self)


class MemoryMessaging:
    """A Messaging. Give several clients the same ``exchange`` list to link them.

    Attributes:
        connected: set it False to cut this client off: it sends and hears nothing.
        published: (subject, payload) of every publish that was sent.
        next_error: raised by the next call, once.
    """

    def __init__(self, exchange: list[_Subscription] | None = None) -> None:
        self.exchange: list[_Subscription] = [] if exchange is None else exchange
        self.connected = True
        self.published: list[tuple[str, bytes]] = []
        self.next_error: Exception | None = None

    def linked(self) -> MemoryMessaging:
        """Another client on the same exchange."""
        return MemoryMessaging(self.exchange)

    async def publish(self, subject: str, payload: bytes) -> None:
        self._fail()
        if not self.connected:
            return
        self.published.append((subject, payload))
        for subscription in self._listening(subject):
            if subscription.handler is not None:
                subscription.handler(subject, payload)
            elif subscription.responder is not None:
                await subscription.responder(subject, payload)

    async def subscribe(self, subject: str, handler: _Handler, *, hot: bool = False) -> _Subscription:
        """As the real one; ``hot`` makes no difference here."""
        del hot
        self._fail()
        return _Subscription(self, subject, handler, None)

    async def respond(self, subject: str, handler: _Responder) -> _Subscription:
        self._fail()
        return _Subscription(self, subject, None, handler)

    async def request(self, subject: str, payload: bytes, timeout_seconds: float) -> bytes:
        self._fail()
        if self.connected:
            for subscription in self._listening(subject):
                if subscription.handler is not None:
                    subscription.handler(subject, payload)
                elif subscription.responder is not None:
                    try:
                        async with asyncio.timeout(timeout_seconds):
                            return await subscription.responder(subject, payload)
                    except TimeoutError:
                        break
        raise Unavailable(f"nobody answers on {subject}")

    def _listening(self, subject: str) -> list[_Subscription]:
        return [one for one in self.exchange if one.owner.connected and matches(one.pattern, subject)]

    def _fail(self) -> None:
        error, self.next_error = self.next_error, None
        if error is not None:
            raise error
