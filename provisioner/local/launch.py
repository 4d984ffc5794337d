"""Start a machine: directory, tags, address, process, and the wait until it listens."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from provisioner.local.addresses import Lease, lease
from provisioner.local.config import NodeConfig, read_config
from provisioner.local.directory import MachineDir, Ports, Tags, unusable
from provisioner.local.files import last_lines, write_whole
from provisioner.local.processes import Identity, send, wait_for_end, write_pid_file
from secbeat.errors import SecbeatError

NODE = (sys.executable, "-P", "-m", "secbeat", "node")
# The node is configured by its file alone; what a job or a shell has set for itself must not reach it.
# Not TMPDIR: that of a job is gone when the job is.
_ENVIRONMENT = ("HOME", "LANG", "LC_ALL", "LOGNAME", "PATH", "TZ", "USER")
_LOCK_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Started:
    """A machine that listens."""

    id: str
    name: str
    address: str
    proxy_port: int
    management_port: int
    changed: bool

    def plain(self) -> dict[str, Any]:
        """What the playbook reports."""
        return asdict(self)


def start(
    directory: MachineDir,
    tags: Tags,
    *,
    config: str | None = None,
    command: Sequence[str] = NODE,
    timeout: float = 60.0,
) -> Started:
    """Start the machine, or find it running: the same answer either way.

    Args:
        directory: made if it is absent.
        tags: who the machine is; the directory must bear its name.
        config: text of ``node.toml``; None: the file is there already.
        command: the node program; it is given ``--config FILE``.
        timeout: seconds until the ports must be open.

    Raises:
        SecbeatError: MACHINE_INVALID, MACHINE_DIRECTORY, MACHINE_BUSY, MACHINE_NO_ADDRESS, MACHINE_DIED,
            MACHINE_NOT_LISTENING. Nothing runs then that did not run before.
    """
    if directory.name != tags.name:
        raise SecbeatError("MACHINE_INVALID", why=f"{directory.path} is not the directory of machine {tags.name}")
    directory.make()
    with directory.locked(_LOCK_SECONDS) as there:
        if not there:
            raise SecbeatError("MACHINE_BUSY", why=f"{directory.path} was removed while it was being started")
        try:
            if (process := directory.process()) is not None:
                return _found(directory, tags, process, timeout)
            return _launch(directory, tags, config, command, timeout)
        except OSError as error:
            raise unusable(directory.path, error) from None


def _found(directory: MachineDir, tags: Tags, process: Identity, timeout: float) -> Started:
    body = directory.read_tags()
    if body is None or body.get("node_id") != tags.node_id or body.get("pool") != tags.pool:
        raise SecbeatError("MACHINE_INVALID", why=f"{directory.path} belongs to another machine, which is running")
    ports = Ports(**body["ports"])
    _wait_listening(directory, process, body["address"], ports, timeout)
    return _started(tags, body["address"], ports, changed=False)


def _launch(directory: MachineDir, tags: Tags, text: str | None, command: Sequence[str], timeout: float) -> Started:
    config = read_config(directory.config.read_text(encoding="utf-8") if text is None else text)
    ports = config.ports
    leased = lease([port for port in (ports.proxy, ports.management, ports.metrics) if port])
    try:
        directory.write_tags(tags, leased.address, ports)
        write_whole(directory.config, config.narrowed(leased.address))
        _ensure_token(config)
        for name in ("state", "logs"):
            (directory.path / name).mkdir(mode=0o700, exist_ok=True)
        _run(directory, command, leased, ports, timeout)
    finally:
        leased.close()
    return _started(tags, leased.address, ports, changed=True)


def _run(directory: MachineDir, command: Sequence[str], leased: Lease, ports: Ports, timeout: float) -> None:
    process: Identity | None = None
    # A cancel between the fork and our knowing of it would leave a node that nobody ends: it has to wait.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    try:
        process = _spawn(directory, command, leased)
        leased.close()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        _wait_listening(directory, process, leased.address, ports, timeout)
    except BaseException:
        # A start that fails, or is cancelled, leaves nothing running: the next attempt finds a clean place.
        if process is not None:
            send(process, signal.SIGKILL)
            wait_for_end(process, 5.0)
        raise
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _ensure_token(config: NodeConfig) -> None:
    """A node that registers without a join secret needs a management token; by hand nobody has made one."""
    if config.token_file is None or Path(config.token_file).exists():
        return
    from secbeat.auth import new_token, write_secret  # noqa: PLC0415 - costs 50 ms that no other start needs

    path = Path(config.token_file)
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    write_secret(fresh, new_token() + "\n")
    with suppress(FileExistsError):  # another start was first, and its node may have read the token already
        os.link(fresh, path)
    fresh.unlink()


def _spawn(directory: MachineDir, command: Sequence[str], leased: Lease) -> Identity:
    log = os.open(directory.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600)
    try:
        process = subprocess.Popen(  # noqa: S603 - argv, no shell
            [*command, "--config", str(directory.config)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=directory.path,
            env={name: os.environ[name] for name in _ENVIRONMENT if name in os.environ},
            start_new_session=True,
            umask=0o077,
            pass_fds=[leased.holder.fileno()],
            preexec_fn=partial(_in_child, directory.pid_file),  # noqa: PLW1509 - there is only one thread
        )
    except subprocess.SubprocessError:
        raise SecbeatError("MACHINE_DIRECTORY", why=f"{directory.pid_file} cannot be written") from None
    finally:
        os.close(log)
    process.returncode = 0  # it is no child to us: whoever wants its end asks by the pid file
    identity = directory.process()
    if identity is None:
        raise _died(directory)
    return identity


def _in_child(pid_file: Path) -> None:
    """Between fork and exec: there is never a node without a pid file, and it can be signalled as usual."""
    write_pid_file(pid_file, os.getpid())
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGTERM})


def _wait_listening(directory: MachineDir, process: Identity, address: str, ports: Ports, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    waiting = [port for port in (ports.proxy, ports.management) if port]
    while waiting:
        if _listens(address, waiting[0]):
            waiting.pop(0)
        elif wait_for_end(process, 0.02):
            break
        elif time.monotonic() > deadline:
            why = f"port {waiting[0]} of {address} is closed after {timeout:.0f} s{_tail(directory)}"
            raise SecbeatError("MACHINE_NOT_LISTENING", why=why)
    if not process.running:
        raise _died(directory)


def _listens(address: str, port: int) -> bool:
    try:
        socket.create_connection((address, port), timeout=1.0).close()
    except OSError:
        return False
    return True


def _died(directory: MachineDir) -> SecbeatError:
    return SecbeatError("MACHINE_DIED", why=f"the node of {directory.name} ended{_tail(directory)}")


def _tail(directory: MachineDir) -> str:
    lines = last_lines(directory.log)
    return ": " + "\n".join(lines) if lines else " and logged nothing"


def _started(tags: Tags, address: str, ports: Ports, *, changed: bool) -> Started:
    return Started(tags.node_id, tags.name, address, ports.proxy, ports.management, changed)
