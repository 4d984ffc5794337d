"""The driver itself: HAProxy's life, and its part of the drain.

The agent carries no traffic here. What it does on its event loop may wait for HAProxy for a moment without any
client's noticing; where a promise counts from the very next request, it waits.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Coroutine
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from node.dataplane import Quantiles, Totals
from node.dataplane.blocklist import Blocklist
from node.dataplane.haproxy import config, counters, program
from node.dataplane.haproxy.latency import LatencyReceiver
from node.dataplane.haproxy.leaving import Leaving
from node.dataplane.haproxy.maps import BlocklistMap, State, StateMap
from node.dataplane.haproxy.process import Master
from node.dataplane.haproxy.runtime import Place, Runtime, RuntimeFailed
from node.dataplane.limits import allow_many_files
from secbeat.api import bind
from secbeat.auth import write_secret
from secbeat.errors import ConfigError, SecbeatError
from secbeat.settings import NodeSettings, split_address

log = logging.getLogger("proxy")

_POLL = 0.5
_FIRST_RESTART, _LONGEST_RESTART = 0.1, 10.0
_GOOD_LIFE = 30.0  # seconds after which a crash counts as the first one again
_CERTIFICATE_POLL = 10.0
_RETRY = 1.0


class HaproxyPlane:
    """A DataPlane.

    Args:
        hard_stop_seconds: if the agent is gone while its proxy drains, the proxy ends after so long all the same.
    """

    def __init__(self, settings: NodeSettings, state_dir: Path, *, hard_stop_seconds: float = 60.0) -> None:
        self._settings, self._state_dir, self._hard_stop = settings, state_dir, hard_stop_seconds
        self._directory = state_dir / "haproxy"
        self._blocklist = Blocklist()
        self._counting = counters.Counting()
        self._latency = LatencyReceiver()
        self._held: str | None = None
        self._draining = False
        self._ending = False
        self._port = 0
        self._master: Master | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._wake = asyncio.Event()
        self._changing = asyncio.Lock()

    # ------------------------------------------------------------------------------------------------ start and state

    @property
    def port(self) -> int:
        return self._port

    @property
    def in_flight(self) -> int:
        return self._counting.total.in_flight

    @property
    def draining(self) -> bool:
        return self._draining

    @property
    def processes(self) -> list[int]:
        """The ids of HAProxy's processes, whose load is this node's."""
        master = self._master
        return [] if master is None or not master.running else [master.pid, *master.workers, *master.former]

    async def start(self) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._program = await program.find(self._settings.haproxy)
        self._place = Place(self._directory)
        self._runtime = Runtime(self._place)
        self._state = StateMap(self._directory, self._runtime)
        self._map = BlocklistMap(self._directory, self._runtime)
        self._leaving = Leaving(self._runtime)
        master = Master(self._program, self._place, self._runtime)
        allow_many_files(3 * self._settings.max_connections + 256)
        await self._latency.open(self._place)
        if await master.adopt():
            await self._take_over(master)
        else:
            self._port = self._free_port()
            await self._write()
            self._map.write(self._blocklist)
            await master.start()
        self._master = master
        await self._count()
        log.info("HAProxy %s, process %d", self._program.version, master.pid, extra={"action": "proxy_started"})
        for work in (self._supervise(), self._poll(), self._follow_blocklist(), self._follow_certificate()):
            self._spawn(work)

    async def _take_over(self, master: Master) -> None:
        """Go on with the proxy of an agent that has crashed; it is reloaded only if something else is wanted."""
        self._port = split_address(self._settings.listen_addr)[1] or int(self._port_file.read_text(encoding="ascii"))
        if self._state.read() == "serving":
            self._held = None  # it is in rotation with a complete blocklist; that stays until a newer one has come
        self._map.unknown()
        before = (self._directory / config.CONFIG).read_text(encoding="utf-8")
        await self._write()
        self._put_state()
        log.info("Took over HAProxy, process %d, as it serves", master.pid, extra={"action": "proxy_adopted"})
        if before != (self._directory / config.CONFIG).read_text(encoding="utf-8"):
            await master.reload()

    @property
    def _port_file(self) -> Path:
        return self._directory / "port"

    def _free_port(self) -> int:
        """The port, once it is sure that it can be had: HAProxy's own words name no remedy."""
        sock = bind(self._settings.listen_addr)
        with sock:
            return int(sock.getsockname()[1])

    async def _write(self) -> None:
        """All files but the blocklist, checked by HAProxy itself."""
        settings = self._settings
        made = config.render(settings, self._port, lua=self._program.lua, hard_stop_seconds=self._hard_stop)
        write_secret(self._port_file, f"{self._port}\n")
        if not (self._directory / "blocklist.map").exists():
            self._map.write(self._blocklist)
        self._state.write(self._wanted_state())
        self._certificate = self._read_certificate()
        write_secret(self._directory / config.CERTIFICATE, self._certificate)
        config.write_files(self._directory, settings, made.text)
        await program.check(self._program, self._directory, config.CONFIG)
        if made.maxconn <= settings.max_connections:
            log.warning(
                "max_connections is %d, but this process may open files for %d only: raise the limit (ulimit -n)",
                settings.max_connections, made.maxconn, extra={"action": "few_files"},
            )  # fmt: skip

    def _read_certificate(self) -> str:
        host, _ = split_address(self._settings.listen_addr)
        names = [host, self._settings.public_ip]
        return config.certificate(self._settings.tls, self._state_dir, names, datetime.now(UTC))

    def stats(self) -> Totals:
        """As they were half a second ago at most, while HAProxy answers."""
        return dataclasses.replace(
            self._counting.total, blocklist_size=self._blocklist.size, blocklist_version=self._blocklist.version
        )

    def take_latency(self) -> Quantiles:
        return self._latency.take()

    def configure(self, settings: NodeSettings) -> None:
        self._settings = settings
        if self._master is not None:
            self._spawn(self._reconfigure())

    def set_blocklist(self, blocklist: Blocklist) -> None:
        self._blocklist = blocklist
        self._wake.set()

    def hold(self, why: str | None) -> None:
        """Keep out of rotation, for this reason; None: no longer. Requests are served either way."""
        self._held = why
        self._put_state()

    def _wanted_state(self) -> State:
        return "draining" if self._draining else "serving" if self._held is None else "held"

    def _put_state(self) -> None:
        if self._master is None:
            return
        state = self._wanted_state()
        try:
            self._state.write(state)
            self._state.put(state)
        except (RuntimeFailed, SecbeatError) as error:
            log.warning("HAProxy was not told that it is %s: %s", state, error, extra={"action": "proxy_deaf"})
            self._spawn(self._put_state_later())

    async def _put_state_later(self) -> None:
        await asyncio.sleep(_RETRY)
        if not self._ending:
            self._put_state()

    # ---------------------------------------------------------------------------------------------- what goes on beside

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name="haproxy")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _supervise(self) -> None:
        """Start HAProxy again when it has crashed, with growing pauses; until the node leaves."""
        master, wait = self._master, _FIRST_RESTART
        assert master is not None  # noqa: S101 - started by start
        loop = asyncio.get_running_loop()
        began = loop.time()
        while not self._ending:
            await master.ended.wait()
            if self._leaving_now():
                return
            if loop.time() - began > _GOOD_LIFE:
                wait = _FIRST_RESTART
            log.error(
                "HAProxy ended: %s; it is started again", program.complaint(master.output()),
                extra={"action": "proxy_crashed"},
            )  # fmt: skip
            self._counting.read({})
            await asyncio.sleep(wait)
            wait = min(wait * 2, _LONGEST_RESTART)
            began = loop.time()
            async with self._changing:
                await self._start_again(master)

    async def _start_again(self, master: Master) -> None:
        try:
            self._state.write(self._wanted_state())
            self._map.write(self._blocklist)
            await master.start()
        except SecbeatError as error:
            log.error("HAProxy does not start: %s", error.why, extra={"action": "proxy_failed"})  # noqa: TRY400
            master.ended.set()
            return
        log.warning("HAProxy serves again, process %d", master.pid, extra={"action": "proxy_restarted"})

    async def _poll(self) -> None:
        while True:
            await asyncio.sleep(_POLL)
            with contextlib.suppress(RuntimeFailed, ValueError):
                await self._count()

    async def _count(self) -> None:
        """Read the counters of all workers.

        Raises:
            RuntimeFailed, ValueError: no usable answer.
        """
        master = self._master
        assert master is not None  # noqa: S101 - started by start
        if not master.running:
            self._counting.read({})
            return
        if master.former:
            await master.look()
        readings = {}
        for worker in (*master.workers, *master.former):
            with contextlib.suppress(ValueError):
                readings[worker] = counters.parse(await self._runtime.ask(f"@!{worker} {counters.SHOW}"))
        if readings:
            self._counting.read(readings)

    async def _follow_blocklist(self) -> None:
        """Changes at once, ends when they come."""
        while True:
            left = max(0.0, self._map.next_end - datetime.now(UTC).timestamp())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(left + 0.01, 3600.0)):
                    await self._wake.wait()
            self._wake.clear()
            try:
                async with self._changing:
                    await self._map.follow(self._blocklist)
            except RuntimeFailed as error:
                log.warning("The blocklist is not in force yet: %s", error, extra={"action": "proxy_deaf"})
                await asyncio.sleep(_RETRY)
                self._wake.set()

    async def _follow_certificate(self) -> None:
        while True:
            await asyncio.sleep(_CERTIFICATE_POLL)
            await self._renew_certificate()

    async def _renew_certificate(self) -> None:
        """A renewed certificate counts from the next handshake on, without a reload."""
        try:
            text = self._read_certificate()
            if text == self._certificate:
                return
            await self._runtime.ask(f"@1 set ssl cert {config.CERTIFICATE} <<\n{text}")
            said = await self._runtime.ask(f"@1 commit ssl cert {config.CERTIFICATE}")
            if "Success" not in said:
                raise RuntimeFailed(" ".join(said.split())[:200] or "it was not taken")  # noqa: TRY301
            write_secret(self._directory / config.CERTIFICATE, text)
        except (RuntimeFailed, SecbeatError) as error:
            why = error.why if isinstance(error, SecbeatError) else error
            log.warning("The certificate stays as it is: %s", why, extra={"action": "certificate_kept"})
            return
        self._certificate = text
        log.info("New certificate in force", extra={"action": "certificate_renewed"})

    async def _reconfigure(self) -> None:
        """Live keys and certificate; a reload only if HAProxy's configuration differs."""
        master = self._master
        assert master is not None  # noqa: S101 - configure has seen it
        await self._renew_certificate()
        before = (self._directory / config.CONFIG).read_text(encoding="utf-8")
        trusted = (self._directory / "trusted.lst").read_text(encoding="utf-8")
        async with self._changing:
            try:
                await self._write()
                after = (self._directory / config.CONFIG).read_text(encoding="utf-8")
                if (before, trusted) != (after, (self._directory / "trusted.lst").read_text(encoding="utf-8")):
                    self._map.write(self._blocklist)
                    await master.reload()
                    log.info("HAProxy reloaded", extra={"action": "proxy_reloaded"})
            except ConfigError as error:
                log.error("HAProxy goes on as it was: %s", error.why, extra={"action": "reload_refused"})  # noqa: TRY400

    def _leaving_now(self) -> bool:
        return self._ending

    # ----------------------------------------------------------------------------------------------------------- drain

    def begin_drain(self) -> None:
        self._draining = True
        self._put_state()

    def cancel_drain(self) -> None:
        if not self._ending:
            self._draining = False
            self._put_state()

    async def close_listener(self) -> None:
        self._draining = self._ending = True
        if self._master is not None:
            await self._leaving.close(self._master)

    async def settle(self, seconds: float) -> int:
        if self._master is not None:
            await self._leaving.settle(self._master, seconds, self._count, self._counting)
        return self.in_flight

    async def end(self) -> None:
        self._ending = True
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._master is not None:
            await self._master.kill()
            self._master = None
        self._latency.close()
        if hasattr(self, "_place"):
            self._place.close()
