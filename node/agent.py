"""The agent: joins, reports, listens to the fleet. It runs beside the data plane and never in its way."""

from __future__ import annotations

import asyncio
import logging
import random

from node import heartbeats
from node.dataplane import DataPlane
from node.drain import Drain
from node.heartbeats import Beats
from node.link import Link
from node.load import Sampler
from node.membership import Member, Membership
from node.registration import Unreachable
from node.rules import RulesFollower
from node.waiting import wait_for
from secbeat import subjects
from secbeat.clock import Clock
from secbeat.service import Tasks
from secbeat.wire.heartbeat import LegacyHeartbeat, NodeStatus

log = logging.getLogger("agent")

_GOODBYE_SECONDS = 2.0


class Agent:
    """One node's agent."""

    def __init__(
        self,
        *,
        membership: Membership,
        link: Link,
        rules: RulesFollower,
        beats: Beats,
        sampler: Sampler,
        plane: DataPlane,
        drain: Drain,
        clock: Clock,
    ) -> None:
        self._membership, self._link, self._rules = membership, link, rules
        self._beats, self._sampler, self._plane, self._drain, self._clock = beats, sampler, plane, drain, clock
        self._poked = asyncio.Event()
        self._posting: asyncio.Task[None] | None = None
        self._leaving = False

    @property
    def member(self) -> Member | None:
        """This node in the fleet, once it has joined."""
        return self._membership.member

    @property
    def status(self) -> NodeStatus:
        """What the node says of itself while it lives; its last word is ``Terminating``."""
        return "Draining" if self._drain.draining else "Active"

    def poke(self) -> None:
        """Send a heartbeat at once."""
        self._poked.set()

    async def run(self, tasks: Tasks) -> None:
        """Join, read the blocklist, then report; for ever. A node that has not read it is not in rotation.

        Raises:
            AuthError: JOIN_REFUSED.
        """
        await self._membership.enter()
        self._sampler.restart()
        self._rules.refresh()
        tasks.spawn("membership", self._membership.run())
        tasks.spawn("nats", self._link.run())
        tasks.spawn("rules", self._rules.run())
        # The first heartbeat makes a node active: it must block what the others block.
        await self._rules.ready()
        while True:
            await self._beat(self.status)
            await self._until_next()

    async def _until_next(self) -> None:
        member = self._membership.member
        assert member is not None  # noqa: S101 - entered before
        seconds = member.heartbeat_seconds * random.uniform(0.95, 1.0)  # noqa: S311 - jitter
        await wait_for(self._poked, self._clock, seconds)
        self._poked.clear()

    async def _beat(self, status: NodeStatus) -> None:
        member = self._membership.member
        assert member is not None  # noqa: S101 - entered before
        if self._leaving:
            return  # nothing may follow the last word
        sample = self._sampler.take()
        if not member.legacy:
            await self._publish(member, status)
        elif self._posting is None or self._posting.done():
            # An orchestrator that hangs must not hold up the next heartbeat, nor pile them up.
            heartbeat = heartbeats.legacy(member.node_id, status, sample, self._plane.stats())
            self._posting = asyncio.create_task(self._post(heartbeat), name="heartbeat")

    async def _publish(self, member: Member, status: NodeStatus) -> None:
        version = self._plane.stats().blocklist_version
        frame = self._beats.frame(member.node_id, member.pool, status, self._sampler.latest, version)
        await self._link.publish(subjects.heartbeat(member.node_id), frame)

    async def _post(self, heartbeat: LegacyHeartbeat) -> None:
        try:
            known = await self._membership.orchestrator.heartbeat(heartbeat)
        except Unreachable as error:
            log.warning("Heartbeat not taken: %s", error, extra={"action": "heartbeat_failed"})
            return
        if not known:
            log.warning("The orchestrator does not know this node: registering anew", extra={"action": "unknown"})
            self._membership.again()

    async def goodbye(self) -> None:
        """The last heartbeat, ``Terminating``, on NATS and in the original's form; best effort, two seconds."""
        member = self._membership.member
        self._leaving = True
        if self._posting is not None:
            self._posting.cancel()
            await asyncio.gather(self._posting, return_exceptions=True)
        if member is None:
            return
        sample = self._sampler.take()
        try:
            async with asyncio.timeout(_GOODBYE_SECONDS):
                await self._publish(member, "Terminating")
                await self._link.close()
                if member.legacy:
                    last = heartbeats.legacy(member.node_id, "Terminating", sample, self._plane.stats())
                    await self._membership.orchestrator.heartbeat(last)
        except (TimeoutError, Unreachable) as error:
            log.warning("The last heartbeat was not confirmed: %s", error, extra={"action": "goodbye_failed"})
