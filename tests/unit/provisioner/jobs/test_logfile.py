from __future__ import annotations

import asyncio
import json

from provisioner.jobs.logfile import JobLog, LogHub

OP = "01J00000000000000000000000"


def open_log(hub):
    log = JobLog(hub, OP)
    log.open()
    return log


class Ended:
    def __init__(self):
        self.over = False

    async def __call__(self):
        return self.over


async def collect(hub, offset=0, *, finished, follow=True):
    return b"".join([chunk async for chunk in hub.follow(OP, offset, finished=finished, follow=follow)])


async def test_a_reader_that_comes_early_sees_every_byte_once(tmp_path):
    hub, ended = LogHub(tmp_path), Ended()
    reading = asyncio.create_task(collect(hub, finished=ended))
    await asyncio.sleep(0.01)
    log = open_log(hub)
    for number in range(500):
        log.line(f"line {number}")
        if number % 50 == 0:
            await asyncio.sleep(0.002)
    ended.over = True
    log.close()
    expected = "".join(f"line {number}\n" for number in range(500)).encode()
    assert await reading == expected == hub.path(OP).read_bytes()


async def test_what_is_written_right_before_the_end_is_not_lost(tmp_path):
    hub, ended = LogHub(tmp_path), Ended()
    log = open_log(hub)

    async def finished():
        # The end comes between the reader's question and its reading.
        before = ended.over
        if not before:
            log.line("last words")
            ended.over = True
        return before

    assert await collect(hub, finished=finished) == b"last words\n"
    log.close()


async def test_reading_goes_on_at_any_offset(tmp_path):
    hub, ended = LogHub(tmp_path), Ended()
    ended.over = True
    log = open_log(hub)
    log.line("é" * 1000)
    log.close()
    whole = hub.path(OP).read_bytes()
    for offset in (0, 1, 999, len(whole) - 1, len(whole), len(whole) + 5):
        assert await collect(hub, offset, finished=ended) == whole[offset:]


async def test_without_follow_a_running_job_gives_what_there_is(tmp_path):
    hub, ended = LogHub(tmp_path), Ended()
    log = open_log(hub)
    log.line("so far")
    assert await collect(hub, finished=ended, follow=False) == b"so far\n"
    log.close()


async def test_a_second_attempt_continues_the_same_log(tmp_path):
    hub = LogHub(tmp_path)
    for text in ("one", "two"):
        log = open_log(hub)
        log.line(text)
        log.close()
    assert hub.path(OP).read_text() == "one\ntwo\n"


def test_a_log_at_its_limit_is_cut_and_says_so(tmp_path):
    hub = LogHub(tmp_path, max_bytes=1000)
    log = open_log(hub)
    for _ in range(100):
        log.line("x" * 99)
    log.close()
    text = hub.path(OP).read_text()
    assert len(text) < 1200
    assert "the log is cut here" in text


def test_a_full_disk_loses_lines_but_not_the_job(tmp_path, caplog):
    log = open_log(LogHub(tmp_path))
    log._files["log"].close()
    log._files["log"] = open("/dev/full", "ab")  # noqa: SIM115, PTH123 - closed by the log
    for _ in range(3):
        log.line("x")
    log._files.pop("log").raw.close()
    assert caplog.text.count("loses lines") == 1
    log.close()


def test_events_are_one_json_object_per_line_whatever_is_in_them(tmp_path):
    hub = LogHub(tmp_path)
    log = open_log(hub)
    log.event({"a": "line\nbreak \u2028 \ud800"})
    log.event({"b": object})
    log.close()
    lines = (tmp_path / OP / "events.jsonl").read_bytes().split(b"\n")
    assert [sorted(json.loads(line)) for line in lines[:-1]] == [["a"], ["b"]]


def test_log_and_events_are_private(tmp_path):
    hub = LogHub(tmp_path / "jobs")
    open_log(hub).close()
    assert (tmp_path / "jobs" / OP).stat().st_mode & 0o777 == 0o700
    assert hub.path(OP).stat().st_mode & 0o777 == 0o600
