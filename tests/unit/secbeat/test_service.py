"""A service's life; signals are sent to real processes."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
from textwrap import dedent

import pytest

from secbeat.service import Stop, Tasks


class TestStop:
    async def test_the_first_reason_is_kept(self):
        stop = Stop()
        assert not stop.requested
        stop.request("SIGTERM")
        stop.request("another")
        assert stop.requested
        assert stop.reason == "SIGTERM"
        await stop.wait()

    async def test_waiting_ends_at_once_when_the_end_is_asked_for(self):
        stop = Stop()
        waiting = asyncio.ensure_future(stop.wait_for(3600))
        await asyncio.sleep(0)
        stop.request("test")
        assert await waiting is True

    async def test_waiting_ends_without_it_after_its_time(self):
        assert await Stop().wait_for(0.01) is False

    @pytest.mark.parametrize("seconds", [0, -1])
    async def test_no_time_to_wait_is_a_question(self, seconds):
        stop = Stop()
        assert await stop.wait_for(seconds) is False
        stop.request("test")
        assert await stop.wait_for(seconds) is True


class TestTasks:
    async def test_an_eternal_task_that_fails_stops_the_service_and_is_logged_with_its_traceback(self, caplog):
        stop = Stop()
        tasks = Tasks(stop)

        async def fail():
            raise RuntimeError("a defect")

        tasks.spawn("ticker", fail())
        await stop.wait()
        assert str(stop.failed) == "a defect"
        assert "ticker" in stop.reason
        (record,) = caplog.records
        assert record.levelno == logging.ERROR
        assert record.exc_info[1] is stop.failed

    async def test_an_eternal_task_that_ends_quietly_stops_the_service_too(self, caplog):
        stop = Stop()

        async def end():
            pass

        Tasks(stop).spawn("ticker", end())
        await stop.wait()
        assert stop.failed is not None
        assert "ended unexpectedly" in caplog.text

    async def test_after_the_end_was_asked_for_a_task_may_end(self, caplog):
        stop = Stop()
        stop.request("test")

        async def end():
            pass

        await Tasks(stop).spawn("ticker", end())
        await asyncio.sleep(0)
        assert stop.failed is None
        assert caplog.records == []

    async def test_a_task_that_is_not_eternal_may_end_and_its_failure_does_not_stop_the_service(self, caplog):
        stop = Stop()
        tasks = Tasks(stop)

        async def fail():
            raise RuntimeError("a defect")

        async def end():
            return 7

        assert await tasks.spawn("one", end(), eternal=False) == 7
        task = tasks.spawn("two", fail(), eternal=False)
        await asyncio.wait({task})
        await asyncio.sleep(0)
        assert not stop.requested
        assert "two" in caplog.text

    async def test_closing_cancels_what_runs_and_waits_for_it(self):
        ended = []

        async def forever(name):
            try:
                await asyncio.Event().wait()
            finally:
                await asyncio.sleep(0)
                ended.append(name)

        stop = Stop()
        tasks = Tasks(stop)
        for name in ("a", "b"):
            tasks.spawn(name, forever(name))
        await asyncio.sleep(0)
        await tasks.close()
        assert sorted(ended) == ["a", "b"]
        assert stop.failed is None

    async def test_a_task_that_ignores_its_cancellation_does_not_hold_up_the_end(self, caplog):
        release = asyncio.Event()

        async def stubborn():
            while not release.is_set():
                try:
                    await release.wait()
                except asyncio.CancelledError:
                    continue

        tasks = Tasks(Stop())
        task = tasks.spawn("stubborn", stubborn())
        await asyncio.sleep(0)
        await tasks.close(timeout=0.05)
        assert "stubborn does not end" in caplog.text
        release.set()
        await asyncio.wait({task})


async def started(tmp_path, body: str) -> asyncio.subprocess.Process:
    """A process that runs ``main`` with ``body`` and says ``ready`` when it is in it."""
    program = tmp_path / "program.py"
    program.write_text(
        dedent("""
            import asyncio, sys
            from secbeat import service
            from secbeat.errors import ConfigError
            from pydantic import BaseModel

            async def main(stop):
                print("ready", flush=True)
            {body}

            sys.exit(service.run("test", main))
            """).format(body="\n".join(f"    {line}" for line in dedent(body).strip().splitlines()))
    )
    return await asyncio.create_subprocess_exec(
        sys.executable, program, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )


async def end(process: asyncio.subprocess.Process) -> tuple[int, str]:
    async with asyncio.timeout(30):
        _, errors = await process.communicate()
    return process.returncode, errors.decode()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_asks_for_the_end_and_the_service_ends_in_order(tmp_path, number):
    process = await started(tmp_path, "await stop.wait()\nprint(stop.reason, file=sys.stderr)\nreturn 0")
    await process.stdout.readline()
    process.send_signal(number)
    code, errors = await end(process)
    assert code == 0
    assert number.name in errors
    assert "Traceback" not in errors


async def test_a_second_interrupt_ends_a_service_that_takes_too_long(tmp_path):
    process = await started(tmp_path, "await stop.wait()\nprint('stopping', flush=True)\nawait asyncio.sleep(600)")
    await process.stdout.readline()
    process.send_signal(signal.SIGINT)
    assert await process.stdout.readline() == b"stopping\n"
    process.send_signal(signal.SIGINT)
    code, errors = await end(process)
    assert code == 130
    assert "Traceback" not in errors


async def test_sighup_asks_for_a_reload_and_nothing_else(tmp_path):
    process = await started(tmp_path, "await stop.reload.wait()\nreturn 5 if not stop.requested else 1")
    await process.stdout.readline()
    process.send_signal(signal.SIGHUP)
    assert (await end(process))[0] == 5


async def test_a_refused_start_says_its_sentence_and_has_its_exit_code(tmp_path):
    process = await started(tmp_path, "raise ConfigError('PORT_IN_USE', why='127.0.0.1:3030 is taken')")
    code, errors = await end(process)
    assert code == 2
    assert "error[PORT_IN_USE]" in errors
    assert "127.0.0.1:3030 is taken" in errors
    assert "Traceback" not in errors


async def test_a_failed_task_makes_the_exit_code_a_failure(tmp_path):
    process = await started(
        tmp_path,
        """
        tasks = service.Tasks(stop)
        async def fail():
            raise RuntimeError("a defect")
        tasks.spawn("ticker", fail())
        await stop.wait()
        return 0
        """,
    )
    code, errors = await end(process)
    assert code == 1
    assert "ticker" in errors


async def test_a_refused_value_is_named_and_not_quoted(tmp_path):
    process = await started(
        tmp_path,
        """
        class Settings(BaseModel):
            port: int
        Settings(port="the-secret-value")
        """,
    )
    code, errors = await end(process)
    assert code == 2
    assert "port" in errors
    assert "the-secret-value" not in errors
