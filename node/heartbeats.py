"""Heartbeats of both kinds, from one sample of the load."""

from __future__ import annotations

from node.dataplane import Totals
from node.load import Sample
from secbeat import __version__
from secbeat.clock import Clock, wire_time
from secbeat.wire.heartbeat import (
    HeartbeatFrame,
    LegacyHeartbeat,
    LegacyMetrics,
    NodeStatus,
    encode_frame,
)


class Beats:
    """Makes heartbeats of one life of the node: ``seq`` strictly increases."""

    def __init__(self, boot_id: str, clock: Clock) -> None:
        self._boot_id, self._clock = boot_id, clock
        self._seq = 0

    def frame(self, node_id: str, pool: str, status: NodeStatus, sample: Sample, blocklist_version: int) -> bytes:
        """Ours, for NATS: fractions."""
        self._seq += 1
        return encode_frame(
            HeartbeatFrame(
                node_id=node_id,
                boot_id=self._boot_id,
                seq=self._seq,
                sent_at=wire_time(self._clock.now()),
                status=status,
                pool=pool,
                metrics=sample.frame(),
                blocklist_version=blocklist_version,
                agent_version=__version__,
            )
        )


def legacy(node_id: str, status: NodeStatus, sample: Sample, totals: Totals) -> LegacyHeartbeat:
    """The original's, for HTTP: cpu and memory in percent. ``packets_per_second`` are requests; there is no WAF."""
    return LegacyHeartbeat(
        node_id=node_id,
        status=status,
        metrics=LegacyMetrics(
            cpu_usage=round(sample.cpu * 100, 2),
            memory_usage=round(sample.memory * 100, 2),
            packets_per_second=round(sample.rps),
            active_connections=sample.connections,
            total_requests=totals.requests,
            ddos_blocks=totals.blocked,
            waf_blocks=0,
        ),
    )
