from __future__ import annotations

from datetime import timedelta

import pytest

from orchestrator.scaling import DecisionLog
from secbeat.store import Unavailable
from secbeat.wire.decisions import Clamp, DecisionRecord


class Shelf:
    """A ledger that may be away."""

    def __init__(self):
        self.kept: list[tuple[str, str, DecisionRecord]] = []
        self.away = False

    async def append(self, kind, pool, record):
        if self.away:
            raise Unavailable("no quorum")
        self.kept.append((kind, pool, DecisionRecord.decode(record)))

    def codes(self):
        return [record.code for _, _, record in self.kept]


@pytest.fixture
def shelf():
    return Shelf()


@pytest.fixture
def log(shelf):
    return DecisionLog(shelf)


def made(pool, seen, *, seconds=0, name="web", **changes) -> DecisionRecord:
    decision = pool().ask(seen(0.5))
    return decision.model_copy(update={"pool": name, "at": decision.at + timedelta(seconds=seconds), **changes})


async def test_every_evaluation_is_an_entry_and_equal_ones_know_how_many_they_are(log, shelf, pool, seen):
    for second in (0, 60, 120):
        noted = log.add(made(pool, seen, seconds=second, sentence=f"cpu at {second}"))
    await log.flush()
    entries = log.newest()
    assert [(entry.equal_count, entry.sentence) for entry in entries] == [
        (1, "cpu at 0"),
        (2, "cpu at 60"),
        (3, "cpu at 120"),
    ]
    assert entries[-1] == noted == log.last("web")
    assert noted.equal_since == made(pool, seen).at
    assert shelf.codes() == ["BETWEEN_THRESHOLDS"]
    assert shelf.kept[0][:2] == ("decision", "web")


async def test_the_last_hundred_of_each_pool_stay_in_memory(log, pool, seen):
    for second in range(150):
        log.add(made(pool, seen, seconds=second))
    log.add(made(pool, seen, seconds=7, name="api"))
    assert len(log.newest("web", 1000)) == 100
    assert (log.newest("web", 1000)[0].equal_count, log.last("web").equal_count) == (51, 150)
    assert len(log.newest("api")) == 1


async def test_the_ledgers_counts_add_up_to_the_evaluations(log, shelf, pool, seen):
    codes = ["BETWEEN_THRESHOLDS"] * 25 + ["AT_MAX"] * 3 + ["COOLDOWN_UP"] + ["BETWEEN_THRESHOLDS"] * 11 + ["AT_MIN"]
    for number, code in enumerate(codes):
        log.add(made(pool, seen, seconds=60 * number, code=code))
    await log.flush()
    written = [(record.code, record.stands_for) for _, _, record in shelf.kept]
    assert written == [
        ("BETWEEN_THRESHOLDS", 1),
        ("BETWEEN_THRESHOLDS", 10),
        ("BETWEEN_THRESHOLDS", 10),
        ("BETWEEN_THRESHOLDS", 4),
        ("AT_MAX", 1),
        ("AT_MAX", 2),
        ("COOLDOWN_UP", 1),
        ("BETWEEN_THRESHOLDS", 1),
        ("BETWEEN_THRESHOLDS", 10),
        ("AT_MIN", 1),
    ]
    assert sum(count for _, count in written) == len(codes)


async def test_the_entry_in_force_at_a_time_is_found_as_far_as_memory_reaches(log, pool, seen):
    for second in range(0, 120 * 60, 60):
        log.add(made(pool, seen, seconds=second))
    start = made(pool, seen).at
    assert log.at("web", start + timedelta(minutes=60, seconds=59)).equal_count == 61
    assert log.at("web", start + timedelta(days=1)) == log.last("web")
    assert log.at("web", start + timedelta(minutes=19, seconds=59)) is None  # a hundred are kept of 120
    assert log.at("none", start) is None


@pytest.mark.parametrize(
    "change",
    [
        {"direction": "up", "size": 1},
        {"size": 2},
        {"code": "AT_MAX"},
        {"clamps": (Clamp(code="AT_MAX", sentence="x"),)},
        {"would": True},
    ],
    ids=lambda change: next(iter(change)),
)
async def test_a_change_of_direction_size_code_or_clamps_is_written(log, shelf, pool, seen, change):
    log.add(made(pool, seen))
    log.add(made(pool, seen, seconds=60, **change))
    log.add(made(pool, seen, seconds=120))
    assert await log.flush() == 3
    assert [entry.equal_count for entry in log.newest()] == [1, 1, 1]
    assert [record.stands_for for _, _, record in shelf.kept] == [1, 1, 1]


async def test_other_numbers_in_a_clamps_sentence_are_no_change(log, shelf, pool, seen):
    for second in (0, 60):
        clamps = (Clamp(code="COOLDOWN_UP", sentence=f"{second} s ago"),)
        log.add(made(pool, seen, seconds=second, clamps=clamps))
    assert await log.flush() == 1


async def test_decisions_that_act_are_never_merged_but_those_of_observe_are(log, shelf, pool, seen):
    for second in (0, 60):
        log.add(made(pool, seen, seconds=second, direction="down", size=1, code="LOW_FLEET_CPU_LOAD"))
    assert await log.flush() == 2
    for second in (120, 180):
        log.add(made(pool, seen, seconds=second, direction="up", size=1, would=True))
    assert await log.flush() == 1


async def test_an_unchanged_decision_is_written_every_ten_minutes(log, shelf, pool, seen):
    for second in range(0, 1801, 60):
        log.add(made(pool, seen, seconds=second))
        await log.flush()
    assert [record.equal_count for _, _, record in shelf.kept] == [1, 11, 21, 31]


async def test_pools_do_not_mix(log, shelf, pool, seen):
    for second in (0, 60):
        for name in ("web", "api"):
            log.add(made(pool, seen, seconds=second, name=name))
    await log.flush()
    assert [pool for _, pool, _ in shelf.kept] == ["web", "api"]
    assert [(entry.pool, entry.equal_count) for entry in log.newest()] in (
        [("web", 1), ("api", 1), ("web", 2), ("api", 2)],
        [("api", 1), ("web", 1), ("api", 2), ("web", 2)],
    )
    assert [entry.pool for entry in log.newest("api")] == ["api", "api"]
    assert log.last("none") is None


async def test_newest_are_the_last_ones_oldest_first(log, pool, seen):
    for second in range(10):
        log.add(made(pool, seen, seconds=second, size=second))
    assert [entry.size for entry in log.newest("web", 3)] == [7, 8, 9]
    assert log.newest(n=0) == []


async def test_what_the_ledger_does_not_confirm_is_kept_in_order(log, shelf, pool, seen):
    shelf.away = True
    log.add(made(pool, seen))
    log.add(made(pool, seen, seconds=60, code="AT_MAX"))
    assert await log.flush() == 0
    assert log.waiting == 2
    shelf.away = False
    assert await log.flush() == 2
    assert shelf.codes() == ["BETWEEN_THRESHOLDS", "AT_MAX"]
    assert (log.waiting, await log.flush()) == (0, 0)


async def test_memory_is_bounded_while_the_ledger_is_away(log, shelf, pool, seen):
    shelf.away = True
    for second in range(3000):
        log.add(made(pool, seen, seconds=second, size=second))
    assert (log.waiting, log.lost, len(log.newest(n=9999))) == (2000, 1000, 100)


async def test_without_a_ledger_decisions_stay_in_memory(pool, seen):
    log = DecisionLog()
    log.add(made(pool, seen))
    assert (await log.flush(), log.waiting, len(log.newest())) == (0, 0, 1)
