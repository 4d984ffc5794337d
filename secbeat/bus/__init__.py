"""The bus: everything that goes through NATS, behind the Protocols of ``secbeat.store``.

The only package that knows nats-py. ``connect`` gives a :class:`Bus`; streams and buckets are made on first use.
"""

from __future__ import annotations

from collections.abc import Callable

from secbeat import subjects
from secbeat.bus import streams
from secbeat.bus.bucket import NatsBucket, Store
from secbeat.bus.connecting import NodeCredentials, open_link
from secbeat.bus.lease import LeaseKeeper, LeaseTiming
from secbeat.bus.ledger import NatsLedger
from secbeat.bus.link import Link, Timing
from secbeat.bus.messaging import NatsMessaging, NatsSubscription
from secbeat.bus.queue import NatsQueue, NatsWork
from secbeat.clock import Clock
from secbeat.settings import NatsSettings

__all__ = [
    "Bus",
    "LeaseKeeper",
    "LeaseTiming",
    "NatsBucket",
    "NatsLedger",
    "NatsMessaging",
    "NatsQueue",
    "NatsSubscription",
    "NatsWork",
    "NodeCredentials",
    "Timing",
    "connect",
]


class Bus:
    """One service's connection to NATS and what it keeps there.

    Every method that touches a stream raises ``Unavailable`` when NATS does not confirm.
    """

    def __init__(self, link: Link, *, replicas: int = 1) -> None:
        self._link, self._replicas = link, replicas
        self.messaging = NatsMessaging(link)

    @property
    def connected(self) -> bool:
        """Whether the connection stands at this moment."""
        return self._link.connected

    @property
    def errors(self) -> dict[str, int]:
        """Asynchronous errors so far by kind (``permission``, ``slow_consumer``, ``handler``, …), for metrics."""
        return dict(self._link.errors)

    async def bucket(self, name: str) -> NatsBucket:
        """A bucket, made if absent."""
        return NatsBucket(await self._store(name))

    async def fenced(self, name: str, lease: LeaseKeeper) -> NatsBucket:
        """A bucket whose every write is refused unless ``lease`` is the latest. Only ``state``: it holds the lease."""
        if name != subjects.STATE_BUCKET:
            raise ValueError(f"bucket {name!r} holds no lease to fence with")
        return NatsBucket(await self._store(name), lease)

    async def lease(self, holder: str, *, clock: Clock | None = None, timing: LeaseTiming | None = None) -> LeaseKeeper:
        """The leadership of this cluster. ``holder`` names one process at a time; see :class:`LeaseKeeper`."""
        await self._store(subjects.STATE_BUCKET)
        timing = timing or LeaseTiming()
        store = Store(self._link, subjects.STATE_BUCKET, timeout=timing.call)
        return LeaseKeeper(store, holder, clock=clock, timing=timing)

    async def queue(self) -> NatsQueue:
        """The work queue of jobs."""
        queue = NatsQueue(self._link, self._replicas)
        await queue.ensure()
        return queue

    async def ledger(self, max_age_days: float = 30) -> NatsLedger:
        """The ledger; ``max_age_days`` counts when it is made."""
        await streams.ensure(self._link, streams.ledger(max_age_days, self._replicas))
        return NatsLedger(self._link)

    def ledger_of_the_orchestrator(self) -> NatsLedger:
        """The ledger for a service that only adds to it; until the orchestrator has made it, nothing can be added."""
        return NatsLedger(self._link)

    async def usage(self) -> dict[str, tuple[int, int]]:
        """Bytes held and allowed, by stream: those of state, job records and ledger, as far as this login may look."""
        buckets = (f"KV_{subjects.STATE_BUCKET}", f"KV_{subjects.JOBS_BUCKET}")
        return await streams.usage(self._link, (*buckets, subjects.LEDGER_STREAM))

    async def close(self) -> None:
        """Close the connection; safe to call twice."""
        await self.messaging.close()
        await self._link.close()

    async def _store(self, name: str) -> Store:
        await streams.ensure(self._link, streams.bucket(name, self._replicas))
        return Store(self._link, name)


async def connect(
    settings: NatsSettings,
    *,
    name: str,
    jetstream: bool = True,
    credentials: NodeCredentials | None = None,
    on_closed: Callable[[], None] | None = None,
    timing: Timing | None = None,
) -> Bus:
    """Connect, waiting at most ``settings.connect_timeout_seconds``; afterwards the connection mends itself.

    Args:
        settings: url, credentials, replicas.
        name: shown in the server's monitoring; part of the private inbox when there are no credentials.
        jetstream: False for a node, which may not use it.
        credentials: a node's own user; else ``settings.creds_file``, else no login.
        on_closed: called once when the connection is gone for good (an expired token, a revoked user): connect anew.
        timing: for tests.

    Raises:
        ConfigError: NATS_UNREACHABLE, NATS_AUTH, NATS_TOO_OLD, NATS_NO_JETSTREAM or SECRET_UNREADABLE.
    """
    link = await open_link(
        settings, name=name, jetstream=jetstream, credentials=credentials, on_closed=on_closed, timing=timing
    )
    return Bus(link, replicas=settings.replicas)
