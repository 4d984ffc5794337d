"""What may stop a scaling: one function per limit, each with the sentence that an operator reads."""

from __future__ import annotations

from datetime import datetime, timedelta

from orchestrator.scaling.case import Case, ago, count, percent
from secbeat.wire.decisions import Clamp
from secbeat.wire.pools import Breaker


def paused_out(case: Case) -> Clamp | None:
    """Growth is paused."""
    return _paused(case, "out", "PAUSED_OUT", "growth")


def paused_in(case: Case) -> Clamp | None:
    """Shrinking is paused."""
    return _paused(case, "in", "PAUSED_IN", "shrinking")


def _paused(case: Case, direction: str, code: str, what: str) -> Clamp | None:
    pause = case.pause
    if pause is None or pause.direction not in {direction, "both"}:
        return None
    until = f"until {_time(pause.until)}" if pause.until is not None else "until 'resume'"
    by = f" by {pause.by}" if pause.by else ""
    reason = f": {pause.reason}" if pause.reason else ""
    return Clamp(code=code, sentence=f"{what} is paused{by} {until}{reason}"[:2000], until=pause.until)


def at_max(case: Case) -> Clamp | None:
    """The pool has its most nodes."""
    if case.capacity < case.policy.max:
        return None
    return Clamp(
        code="AT_MAX", sentence=f"{_load(case)}the pool has {count(case.capacity)} and max is {case.policy.max}"
    )


def at_min(case: Case) -> Clamp | None:
    """The pool has its fewest nodes."""
    if case.capacity > case.policy.min:
        return None
    return Clamp(
        code="AT_MIN", sentence=f"{_load(case)}the pool has {count(case.capacity)} and min is {case.policy.min}"
    )


def breaker(case: Case) -> Clamp | None:
    """Boots failed in a row: the next one waits, and when there were too many it is one probe after the reset time."""
    state = case.history.breaker
    if state.open_since is None:
        return _backoff(case)
    failures = f"{state.failures} boots in a row never joined{_last_error(state)}"
    if state.retry_at is None or case.now < state.retry_at:
        wait = f"the next try is at {_time(state.retry_at)}" if state.retry_at is not None else "no further try is made"
        return Clamp(code="BREAKER_OPEN", sentence=f"{failures}; {wait}"[:2000], until=state.retry_at)
    if case.seen.pending:
        return Clamp(code="BREAKER_OPEN", sentence=f"{failures}; the node that is tried now has not joined yet"[:2000])
    return None


def _backoff(case: Case) -> Clamp | None:
    state = case.history.breaker
    if state.retry_at is None or case.now >= state.retry_at:
        return None
    failed = "the last boot" if state.failures == 1 else f"the last {state.failures} boots"
    reason = _last_error(state)
    sentence = f"{failed} failed{reason}; the next try is at {_time(state.retry_at)}"
    return Clamp(code="BOOT_RETRY", sentence=sentence[:2000], until=state.retry_at)


def _last_error(state: Breaker) -> str:
    code = f"{state.last_code}: " if state.last_code else ""
    return f" ({code}{state.last_error})" if state.last_error else ""


def breaker_probe(case: Case, size: int) -> tuple[int, Clamp | None]:
    """While the breaker is half open, one node at a time."""
    if case.history.breaker.open_since is None or size <= 1:
        return size, None
    return 1, Clamp(code="BREAKER_PROBE", sentence=f"1 node instead of {size}: a try after boots that never joined")


def booting(case: Case) -> Clamp | None:
    """Capacity is on its way."""
    pending = case.seen.pending
    if not pending:
        return None
    what = "counts as capacity until it joins or fails" if pending == 1 else "count as capacity until they join or fail"
    return Clamp(code="BOOTING_CAPACITY", sentence=f"{_load(case)}{count(pending)} on the way {what}")


def warming(case: Case) -> Clamp | None:
    """Nodes have just joined and are expected to be enough."""
    if not case.relieved:
        return None
    return Clamp(
        code="WARMING_UP",
        sentence=f"{_load(case)}{count(case.seen.warming)} joined less than {case.policy.warmup_seconds:g} s ago and "
        f"should bring it to {percent(case.relief)}",
    )


def cooldown_up(case: Case) -> Clamp | None:
    """The last scale-up is too recent."""
    return _cooldown(case, "COOLDOWN_UP", case.policy.scale_up_cooldown_seconds, [case.history.last_up_at])


def cooldown_down(case: Case) -> Clamp | None:
    """The last scaling of any kind is too recent."""
    history = case.history
    times = [history.last_up_at, history.last_down_at, history.last_replace_at]
    return _cooldown(case, "COOLDOWN_DOWN", case.policy.scale_down_cooldown_seconds, times)


def _cooldown(case: Case, code: str, seconds: float, times: list[datetime | None]) -> Clamp | None:
    latest = max((moment for moment in times if moment is not None), default=None)
    if latest is None:
        return None
    passed = ago(case.now, latest)
    if passed >= timedelta(seconds=seconds):
        return None
    sentence = f"{_load(case)}the last scaling was {passed.total_seconds():.0f} s ago, the cooldown is {seconds:g} s"
    return Clamp(code=code, sentence=sentence, until=latest + timedelta(seconds=seconds))


def paced(case: Case) -> Clamp | None:
    """One replacement per check interval."""
    last, interval = case.history.last_replace_at, case.policy.scaling_check_interval_seconds
    # A tick that comes a little early is still the next one.
    if last is None or ago(case.now, last) >= timedelta(seconds=0.9 * interval):
        return None
    sentence = f"{count(case.unreplaced, 'dead node')} to replace, one per {interval:g} s"
    return Clamp(code="REPLACEMENT_PACED", sentence=sentence)


def open_operations(case: Case, size: int) -> tuple[int, Clamp | None]:
    """So many operations may be open at a time."""
    limit = case.history.open_limit
    if limit is None:
        return size, None
    room = max(limit - case.history.open_operations, 0)
    if size <= room:
        return size, None
    sentence = (
        f"{count(room)} instead of {size}: {count(case.history.open_operations, 'operation')} open, limit {limit}"
    )
    return room, Clamp(code="OPEN_OPERATIONS_LIMIT", sentence=sentence)


def unhealthy(case: Case) -> Clamp | None:
    """A fleet with silent or dead nodes does not shrink: what they carried may come back."""
    missing = case.seen.silent + case.unreplaced
    if not missing:
        return None
    return Clamp(code="SILENT_NODES", sentence=f"{_load(case)}{count(missing)} of {case.known} silent or dead")


def draining(case: Case) -> Clamp | None:
    """One at a time: the load of a draining node has yet to move."""
    if not case.seen.draining:
        return None
    return Clamp(code="DRAINING_FIRST", sentence=f"{_load(case)}{count(case.seen.draining)} still draining")


def flap(case: Case) -> Clamp | None:
    """Without the node the pool would have to grow again (Azure's flap guard)."""
    left = case.seen.fresh - 1
    after = case.cpu * case.seen.fresh / left if left else float("inf")
    if after <= case.policy.scale_up_cpu_threshold:
        return None
    return Clamp(
        code="WOULD_FLAP",
        sentence=f"{_load(case)}with one node less it would be {percent(min(after, 1.0))}, above "
        f"{percent(case.policy.scale_up_cpu_threshold)}",
    )


def _load(case: Case) -> str:
    return f"cpu {percent(case.cpu)} of {count(case.seen.fresh)}, but " if case.measured else ""


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
