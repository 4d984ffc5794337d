"""The work queue of jobs on a JetStream work-queue stream.

Deliveries are not limited in number: a message that JetStream gives up after five attempts stays in the stream for
ever and nobody is told. The consumer, which keeps a record of each job, decides when it is enough.
"""

from __future__ import annotations

import json

import nats.errors
from nats.aio.msg import Msg

from secbeat import ids, subjects
from secbeat.bus import streams
from secbeat.bus.link import Link, Refused, reason
from secbeat.bus.scan import ack_fields
from secbeat.store import Unavailable

CONSUMER = "workers"
ACK_WAIT_SECONDS = 30
_SECOND = 1_000_000_000
# The client waits a little longer than the server, so that a message sent at the last moment is not lost.
_GRACE_SECONDS = 1.0


class NatsWork:
    """One delivery of one message."""

    def __init__(self, link: Link, message: Msg) -> None:
        self.op_id = message.subject.rsplit(".", 1)[-1]
        self._link, self._reply = link, message.reply

    @property
    def deliveries(self) -> int:
        """How often the message has been delivered, this time included."""
        return int(ack_fields(self._reply)[0])

    async def done(self) -> None:
        await self._link.request(self._reply, b"+ACK", timeout=self._link.timing.call)

    async def extend(self) -> None:
        await self._send(b"+WPI")

    async def again(self, delay_seconds: float) -> None:
        delay = max(0, int(delay_seconds * _SECOND))
        # JetStream takes a delay of zero for none given.
        await self._send(b"-NAK " + json.dumps({"delay": delay}).encode() if delay else b"-NAK")

    async def _send(self, answer: bytes) -> None:
        if not await self._link.publish(self._reply, answer):
            raise Unavailable("not connected to NATS")


class NatsQueue:
    """A WorkQueue."""

    def __init__(self, link: Link, replicas: int) -> None:
        self._link, self._replicas = link, replicas

    async def ensure(self) -> None:
        """Make stream and consumer if they are absent. Raises Unavailable."""
        await streams.ensure(self._link, streams.work_queue(self._replicas))
        config = {
            "durable_name": CONSUMER,
            "ack_policy": "explicit",
            "ack_wait": ACK_WAIT_SECONDS * _SECOND,
            "max_deliver": -1,
        }
        body = json.dumps({"stream_name": subjects.JOBS_STREAM, "config": config}).encode()
        try:
            await self._link.call(f"$JS.API.CONSUMER.DURABLE.CREATE.{subjects.JOBS_STREAM}.{CONSUMER}", body)
        except Refused as refusal:
            raise Unavailable(f"consumer {CONSUMER}: {refusal}") from None

    async def put(self, op_id: str) -> None:
        subject = subjects.queued(ids.check_op_id(op_id))
        try:
            await self._link.call(subject, op_id.encode(), headers={"Nats-Msg-Id": op_id})
        except Refused as refusal:
            raise Unavailable(f"queue: {refusal}") from None

    async def take(self, timeout_seconds: float) -> NatsWork | None:
        # A consumer takes the request's own time limit; below a millisecond it would be none.
        expires = max(int(timeout_seconds * _SECOND), 1_000_000)
        request = json.dumps({"batch": 1, "expires": expires}).encode()
        try:
            # The old style: the answer comes under the message's own subject, which the new style cannot tell apart.
            message = await self._link.client.request(
                f"$JS.API.CONSUMER.MSG.NEXT.{subjects.JOBS_STREAM}.{CONSUMER}",
                request,
                timeout=timeout_seconds + _GRACE_SECONDS,
                old_style=True,
            )
        except nats.errors.NoRespondersError:
            await self.ensure()  # the stream or its consumer is gone; whoever put the jobs puts them again
            return None
        except nats.errors.TimeoutError:
            if not self._link.connected:
                raise Unavailable("not connected to NATS") from None
            return None
        except (nats.errors.Error, OSError) as error:
            raise Unavailable(f"NATS: {reason(error)}") from None
        return NatsWork(self._link, message) if message.reply else None
