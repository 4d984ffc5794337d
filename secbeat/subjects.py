"""NATS subjects and bucket names. No other module spells one."""

from __future__ import annotations

HEARTBEATS = "secbeat.hb.*"
EVENTS = "secbeat.ev.>"
JOB_HINTS = "secbeat.jobs.*"
QUEUE_SUBJECTS = "secbeat.queue.*"

STATE_BUCKET = "state"
JOBS_BUCKET = "jobs"
JOBS_STREAM = "JOBS"
LEDGER_STREAM = "LEDGER"
LEADER_KEY = "leader"


def heartbeat(node_id: str) -> str:
    """Where a node publishes its heartbeats, its final one included."""
    return f"secbeat.hb.{node_id}"


def command(node_id: str, verb: str) -> str:
    """``terminate``, ``resume``, ``blocklist`` or ``ping`` for one node: request and reply."""
    return f"secbeat.cmd.{node_id}.{verb}"


def commands(node_id: str) -> str:
    """All verbs of one node."""
    return f"secbeat.cmd.{node_id}.*"


def job_hint(op_id: str) -> str:
    """A hint that the job record of ``op_id`` changed; the record is the truth."""
    return f"secbeat.jobs.{op_id}"


def queued(op_id: str) -> str:
    """The work queue's subject of one job."""
    return f"secbeat.queue.{op_id}"


def event(kind: str) -> str:
    """One of our own events, e.g. ``node.joined``."""
    return f"secbeat.ev.{kind}"


def ledger(pool: str, kind: str) -> str:
    """The ledger: ``kind`` is ``decision``, ``operation`` or ``audit``; ``pool`` is ``_`` where there is none."""
    return f"secbeat.ledger.{kind}.{pool}"


LEDGER_SUBJECTS = "secbeat.ledger.>"

# The original's subjects (secbeat-contracts 8), spoken as they are.
LEGACY_WAF_EVENTS = "secbeat.events.waf"
LEGACY_TELEMETRY = "secbeat.telemetry.>"
LEGACY_CONTROL = "secbeat.control.commands"
LEGACY_BLOCK = "secbeat.commands.block"
