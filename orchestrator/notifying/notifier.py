"""From evaluations and events to messages, and from messages to the receiver.

What decides never waits for who is told: ``evaluated`` only compares and puts into a bounded queue. One task delivers,
in order, with growing pauses; what cannot be delivered for long is given up and counted.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Collection
from random import Random
from urllib.parse import urlsplit

from orchestrator.events import EventHub
from orchestrator.notifying.conditions import Condition, conditions
from orchestrator.notifying.messages import Details, Notification, about_condition, message_id
from orchestrator.notifying.posting import Poster
from orchestrator.operations.backoff import full_jitter
from secbeat import signing
from secbeat.clock import Clock
from secbeat.settings import NotificationKind
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.events import Event
from secbeat.wire.pools import PoolRecord

log = logging.getLogger("notifications")

_QUIET = 3  # evaluations without it before a limit is over: load that hovers around a threshold is one matter
ATTEMPTS = 10  # with the pauses between them about eight minutes
_WAITING = 1000
_PASSING = frozenset({408, 425, 429})
_HAPPENS: dict[str, NotificationKind] = {
    "operation.failed": "operation_failed",
    "operation.needs_operator": "needs_operator",
    "node.failed": "node_failed",
}


class Notifier:
    """Tells one receiver.

    Args:
        url: of the receiver.
        secret: signs each message (``whsec_…``).
        kinds: those that are told; others are not even noted.
        cluster_id: known once the records are loaded.
    """

    def __init__(
        self,
        *,
        url: str,
        secret: str,
        kinds: Collection[NotificationKind],
        poster: Poster,
        clock: Clock,
        cluster_id: Callable[[], str],
        random: Random | None = None,
    ) -> None:
        self._url, self._secret, self._kinds = url, signing.check_secret(secret), frozenset(kinds)
        self._poster, self._clock, self._cluster_id = poster, clock, cluster_id
        self._random = random or Random()  # noqa: S311 - jitter
        self._lasting: dict[tuple[str, NotificationKind], Condition] = {}
        self._absent: dict[tuple[str, NotificationKind], int] = {}
        self._waiting: deque[Notification] = deque(maxlen=_WAITING)
        self._came = asyncio.Event()
        self.delivered = self.lost = 0

    def evaluated(self, decision: DecisionRecord, record: PoolRecord) -> None:
        """One evaluation of a pool: a message for what began with it, and for what is over."""
        now, pool = self._clock.now(), decision.pool
        found = {kind: one for kind, one in conditions(decision, record).items() if kind in self._kinds}
        for kind, condition in found.items():
            self._absent.pop((pool, kind), None)
            if (pool, kind) not in self._lasting:
                self._lasting[pool, kind] = condition
                self._tell(about_condition(kind, "began", condition, pool=pool, cluster_id=self._cluster_id(), now=now))
        for key in [key for key in self._lasting if key[0] == pool and key[1] not in found]:
            self._absent[key] = self._absent.get(key, 0) + 1
            if key[1] == "at_limit" and self._absent[key] < _QUIET:
                continue
            del self._absent[key]
            condition = self._lasting.pop(key)
            self._tell(about_condition(key[1], "ended", condition, pool=pool, cluster_id=self._cluster_id(), now=now))

    async def follow(self, events: EventHub) -> None:
        """Until cancelled: a message for each event that is one of ours."""
        while True:
            with events.follow(limit=10_000) as feed:
                while taken := await feed.take():
                    for encoded in taken:
                        if (kind := _HAPPENS.get(encoded.kind)) in self._kinds and kind is not None:
                            self._happened(kind, Event.decode(encoded.payload))

    def _happened(self, kind: NotificationKind, event: Event) -> None:
        details = Details(
            cluster_id=self._cluster_id(),
            kind=kind,
            phase="happened",
            pool=event.pool,
            code=str(event.facts.get("code") or kind.upper()),
            sentence=event.sentence,
            since=event.at,
            node_id=event.node_id,
            op_id=event.op_id,
        )
        self._tell(Notification(type=f"{kind}.happened", timestamp=self._clock.now(), data=details))

    def _tell(self, notification: Notification) -> None:
        if len(self._waiting) == self._waiting.maxlen:
            self.lost += 1
        self._waiting.append(notification)
        self._came.set()

    async def run(self) -> None:
        """Deliver what waits, in order, until cancelled."""
        while True:
            while self._waiting:
                if not await self._deliver(self._waiting.popleft()):
                    self.lost += 1
            self._came.clear()
            await self._came.wait()

    async def close(self) -> None:
        """Close the connections; what waits is not delivered any more."""
        await self._poster.close()

    async def _deliver(self, notification: Notification) -> bool:
        identity, body = message_id(notification), notification.encode()
        for attempt in range(1, ATTEMPTS + 1):
            stamp = int(self._clock.now().timestamp())
            headers = signing.headers(self._secret, msg_id=identity, timestamp=stamp, body=body)
            status = await self._poster.post(self._url, body, headers)
            if status is not None and 200 <= status < 300:
                self.delivered += 1
                return True
            if status is not None and status < 500 and status not in _PASSING:
                break  # it was understood and refused: the same again would be, too
            if attempt < ATTEMPTS:
                await self._clock.sleep(full_jitter(attempt, random=self._random, cap=120.0))
        log.warning(
            "Notification %s was not delivered to %s: %s",
            notification.type,
            urlsplit(self._url).hostname,
            "no answer" if status is None else f"it answered {status}",
            extra={"action": "notification_lost", "pool": notification.data.pool},
        )
        return False
