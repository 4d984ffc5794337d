"""Reading many messages of a stream at once, through a consumer that lives for one reading."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import Any

from nats.aio.msg import Msg

from secbeat.bus.link import Link, Refused
from secbeat.store import Unavailable

_BATCH = 2000
_LIFE_SECONDS = 30
_PATIENCE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Stored:
    """A stored message."""

    subject: str
    sequence: int
    headers: dict[str, str]
    payload: bytes


class Scan:
    """A reading position in a stream; ``pending`` messages match and are still to be read."""

    def __init__(self, link: Link, stream: str, name: str, pending: int) -> None:
        self._link, self._stream, self._name = link, stream, name
        self.pending = pending

    @classmethod
    async def open(cls, link: Link, stream: str, subject: str, **where: Any) -> Scan:
        """Place a reader. ``where`` is JetStream's ``deliver_policy`` and what belongs to it.

        Raises:
            Unavailable: the stream does not answer or does not exist.
        """
        config = {
            "filter_subject": subject,
            "ack_policy": "none",
            "mem_storage": True,
            "num_replicas": 1,
            "inactive_threshold": _LIFE_SECONDS * 1_000_000_000,
            **where,
        }
        body = json.dumps({"stream_name": stream, "config": config}).encode()
        try:
            answer = await link.call(f"$JS.API.CONSUMER.CREATE.{stream}", body)
        except Refused as refusal:
            raise Unavailable(f"stream {stream}: {refusal}") from None
        return cls(link, stream, answer["name"], int(answer.get("num_pending", 0)))

    async def read(self) -> list[Stored]:
        """Everything that matches, in the order of the stream. Raises Unavailable if it is not complete."""
        found: list[Stored] = []
        while self.pending > 0:
            batch = await self._fetch(min(_BATCH, self.pending))
            if not batch:
                raise Unavailable(f"stream {self._stream}: {self.pending} messages were announced and did not come")
            found.extend(batch)
        return found

    async def close(self) -> None:
        """Remove the consumer; the server would do so by itself after half a minute."""
        await self._link.publish(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._name}", b"")

    async def _fetch(self, count: int) -> list[Stored]:
        batch: list[Stored] = []
        done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        async def on_message(message: Msg) -> None:
            if message.reply:
                sequence, self.pending = _position(message.reply)
                batch.append(Stored(message.subject, sequence, message.headers or {}, message.data))
            # Without a reply subject it is a status: no (more) messages.
            if (not message.reply or len(batch) == count) and not done.done():
                done.set_result(None)

        client = self._link.client
        inbox = client.new_inbox()
        try:
            subscription = await client.subscribe(inbox, cb=on_message)
        except Exception as error:  # noqa: BLE001 - closed, draining, or torn away: all the same to the reader
            raise Unavailable(f"NATS: {error}") from None
        try:
            request = json.dumps({"batch": count, "no_wait": True}).encode()
            if not await self._link.publish(
                f"$JS.API.CONSUMER.MSG.NEXT.{self._stream}.{self._name}", request, reply=inbox
            ):
                raise Unavailable("not connected to NATS")
            async with asyncio.timeout(_PATIENCE_SECONDS):
                await done
        except TimeoutError:
            raise Unavailable(f"stream {self._stream}: no messages in {_PATIENCE_SECONDS:g} s") from None
        finally:
            if not client.is_closed:
                await subscription.unsubscribe()
        return batch


def _position(reply: str) -> tuple[int, int]:
    """Stream sequence and number of messages still pending, from an acknowledgement subject."""
    fields = ack_fields(reply)
    return int(fields[1]), int(fields[4])


def ack_fields(reply: str) -> list[str]:
    """``delivered, stream sequence, consumer sequence, timestamp, pending`` of an acknowledgement subject.

    ``$JS.ACK.<stream>.<consumer>.…`` or, from newer servers, ``$JS.ACK.<domain>.<account>.<stream>.<consumer>.…``.
    """
    parts = reply.split(".")
    return parts[4:9] if len(parts) == 9 else parts[6:11]
