"""Checks of the machine: limits, loopback addresses, ports, disk."""

from __future__ import annotations

import errno
import resource
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from secbeat.cli.doctor.finding import Finding

_MIN_FILES = 4096
_INOTIFY = {"max_user_instances": 128, "max_user_watches": 8192}
_PROC = Path("/proc/sys/fs/inotify")
_MIN_FREE_BYTES = 512 * 1024 * 1024


def checks(ports: dict[str, str], *, local: bool, state: Path) -> Iterator[Finding]:
    """Limits, loopback, ports.

    Args:
        ports: name of a listener → ``host:port`` that must be free for it.
        local: whether a blueprint makes nodes on this machine.
        state: the state directory.
    """
    yield _open_files()
    yield _inotify()
    yield loopback() if local else Finding("machine", "loopback", "skip", "no blueprint has target 'local'")
    yield _disk(state)
    for name, address in ports.items():
        yield port(name, address)


def _open_files() -> Finding:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= _MIN_FILES:
        return Finding("machine", "open files", "ok", f"limit {'none' if soft == resource.RLIM_INFINITY else soft}")
    wanted = 65536 if hard == resource.RLIM_INFINITY else min(65536, hard)
    detail = f"limit {soft}: too low for thousands of connections"
    return Finding("machine", "open files", "warn", detail, f"ulimit -n {wanted}, or LimitNOFILE=65536 in the unit")


def _inotify() -> Finding:
    low = {}
    for name, least in _INOTIFY.items():
        try:
            value = int((_PROC / name).read_text())
        except (OSError, ValueError):
            return Finding("machine", "inotify", "skip", f"{_PROC / name} cannot be read")
        if value < least:
            low[name] = value
    if low:
        settings = " ".join(f"fs.inotify.{name}={_INOTIFY[name]}" for name in low)
        detail = ", ".join(f"{name} is {value}" for name, value in low.items())
        return Finding("machine", "inotify", "warn", detail, f"sudo sysctl -w {settings}")
    return Finding("machine", "inotify", "ok", "limits suffice")


def loopback(address: str = "127.0.1.10") -> Finding:
    """Whether nodes of target ``local`` can have loopback addresses of their own."""
    with socket.socket() as sock:
        try:
            sock.bind((address, 0))
        except OSError as error:
            detail = f"{address} cannot be bound: {error.strerror}"
            return Finding("machine", "loopback", "fail", detail, "sudo ip address add 127.0.0.0/8 dev lo")
    return Finding("machine", "loopback", "ok", "127.0.1.x can be used by local nodes")


def _disk(state: Path) -> Finding:
    place = next((one for one in (state, *state.parents) if one.exists()), Path("/"))
    free = shutil.disk_usage(place).free
    detail = f"{free / 1e9:.1f} GB free for {state}"
    if free < _MIN_FREE_BYTES:
        return Finding("machine", "disk", "fail", detail, "Free some space, or choose another directory: --state DIR")
    return Finding("machine", "disk", "ok", detail)


def port(name: str, address: str) -> Finding:
    """Whether ``host:port`` can be listened on."""
    host, _, number = address.rpartition(":")
    host = host.strip("[]")
    group, label = "machine", f"port {name}"
    try:
        family, kind, protocol, _, target = socket.getaddrinfo(host, int(number), type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as sock:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(target)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            remedy = f"Find who has it: ss -ltnp 'sport = :{number}'; or set another address"
            return Finding(group, label, "fail", f"{address} is taken by another process", remedy)
        if error.errno in {errno.EACCES, errno.EPERM}:
            return Finding(group, label, "fail", f"{address}: {error.strerror}", "Use a port from 1024 upward")
        reason = error.strerror or str(error)
        return Finding(
            group, label, "fail", f"{address}: {reason}", "Use an address of this machine: ip -brief address"
        )
    return Finding(group, label, "ok", f"{address} is free")
