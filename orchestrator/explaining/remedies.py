"""What to do about a hold: a command that can be pasted as it stands, with the pool, node or operation in it."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from secbeat.settings import PoolSettings
from secbeat.wire.decisions import DecisionRecord
from secbeat.wire.operations import OperationRecord
from secbeat.wire.pools import PoolRecord


@dataclass(frozen=True, kw_only=True)
class Situation:
    """What is known about a pool besides its decision.

    Args:
        operations: the pool's, oldest first.
        file: the configuration file, None if there is none; ``pid`` reads it again at SIGHUP.
    """

    policy: PoolSettings
    record: PoolRecord
    operations: Sequence[OperationRecord] = ()
    file: Path | None = None
    pid: int = 0

    def setting(self, key: str, value: str) -> str:
        """How to change a key of the pool's policy."""
        pool = self.record.name
        if self.file is None:
            return f"Write a configuration with [pools.{pool}] {key} = {value}, and start with --config FILE"
        name = shlex.quote(str(self.file))
        then = f"secbeat config check {name} && kill -HUP {self.pid}"
        return f"Set {key} = {value} under [pools.{pool}] of {self.file}, then: {then}"

    def boot(self) -> OperationRecord | None:
        """The node on its way that has been so for the longest time."""
        return next((op for op in self.operations if op.action == "create" and not op.ended), None)


def fix_for(code: str, decision: DecisionRecord, situation: Situation) -> str:
    """What changes a pool that ``decision`` left as it is because of ``code``."""
    pool = decision.pool
    if (make := _BY_SETTING.get(code)) is not None:
        return make(decision, situation)
    if code in _BY_SIZE:
        return f"secbeat scale {pool} {_size(decision, situation)} --for 1h   ({_BY_SIZE[code]})"
    if code in {"BREAKER_OPEN", "BOOT_RETRY", "BREAKER_PROBE"}:
        op_id = situation.record.breaker.last_op_id
        look = f"secbeat jobs log {op_id}" if op_id else f"secbeat operations --pool {pool}"
        return f"{look}   (when it is mended, to try at once: secbeat resume {pool})"
    if code == "BOOTING_CAPACITY" and (op := situation.boot()) is not None:
        return f"secbeat jobs log {op.op_id} -f"
    if code == "ALL_PROTECTED":
        keeper = next((one.node_id for one in decision.snapshot.candidates), "NODE")
        return f"secbeat protect {keeper} --off"
    return _COMMANDS.get(code, "secbeat operations --pool {pool} --open").format(pool=pool)


_COMMANDS = {
    "PAUSED_OUT": "secbeat resume {pool}",
    "PAUSED_IN": "secbeat resume {pool}",
    "PAUSED_BOTH": "secbeat resume {pool}",
    "OVERRIDE": "secbeat resume {pool}",
    "RETIRED": "secbeat resume {pool}",
    "MASS_SILENCE": "secbeat doctor   (if the nodes are really gone: secbeat resume {pool})",
    "NO_FRESH_METRICS": "secbeat nodes --pool {pool}; secbeat doctor",
    "TOO_FEW_FRESH_METRICS": "secbeat nodes --pool {pool}; secbeat doctor",
    "SILENT_NODES": "secbeat nodes --pool {pool}; secbeat doctor",
    "NO_VICTIM": "secbeat why {pool} --nodes",
    "DRAINING_FIRST": "secbeat why {pool} --nodes",
}
# A size that an operator sets waits for no threshold and no cooldown.
_BY_SIZE = {
    "COOLDOWN_UP": "at once; by itself when the cooldown is over",
    "COOLDOWN_DOWN": "at once; by itself when the cooldown is over",
    "WAITING_FOR_CHECKS": "at once; by itself after the checks",
    "BETWEEN_THRESHOLDS": "nothing is wrong; this sets another size all the same",
    "WARMING_UP": "at once; by itself when the nodes have warmed up",
    "WOULD_FLAP": "removes a node all the same",
}


def _size(decision: DecisionRecord, situation: Situation) -> int:
    """The size that the pool would have without the hold, as far as min and max let it."""
    policy, wanted = situation.policy, decision.wanted
    if wanted is None or wanted == decision.capacity:
        wanted = decision.capacity + (1 if decision.capacity < policy.max else -1)
    return min(max(wanted, policy.min), policy.max)


def _raise_max(decision: DecisionRecord, situation: Situation) -> str:
    wanted = max(decision.wanted or 0, decision.capacity, situation.policy.max + 1)
    return situation.setting("max", str(wanted))


def _lower_min(decision: DecisionRecord, situation: Situation) -> str:
    if situation.policy.min == 0:
        size = min(decision.capacity + 1, situation.policy.max)
        return f"secbeat scale {decision.pool} {size} --for 1h   (an empty pool has no load that could call for a node)"
    return situation.setting("min", str(situation.policy.min - 1))


def _bring_back(decision: DecisionRecord, situation: Situation) -> str:
    return situation.setting("max", str(max(decision.capacity, 1)))


_BY_SETTING: dict[str, Callable[[DecisionRecord, Situation], str]] = {
    "AT_MAX": _raise_max,
    "AT_MIN": _lower_min,
    "POOL_VANISHED": _bring_back,
    "OBSERVE_MODE": lambda _decision, situation: situation.setting("mode", '"active"'),
}
