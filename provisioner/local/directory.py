"""One machine's directory: the names in it, who may work on it, how it is removed."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from provisioner.local.files import write_whole
from provisioner.local.processes import Identity, read_pid_file
from secbeat import ids
from secbeat.errors import SecbeatError

_NAME = re.compile(r"[a-z][a-z0-9-]{0,25}-[0-9a-f]{8}")
_OURS = frozenset({"machine.json", "node.toml", "join.json", "pid", "state", "logs"})


@dataclass(frozen=True, slots=True)
class Tags:
    """Who a machine is: what a list of machines must be able to say without asking anybody."""

    node_id: str
    pool: str
    op_id: str | None = None
    cluster_id: str | None = None

    def __post_init__(self) -> None:
        ids.check_pool(self.pool)
        ids.check_node_id(self.node_id)
        if self.op_id is not None:
            ids.check_op_id(self.op_id)
        if self.cluster_id is not None:
            ids.check_uuid(self.cluster_id)

    @property
    def name(self) -> str:
        return ids.machine_name(self.pool, self.node_id)


@dataclass(frozen=True, slots=True)
class Ports:
    """What the node listens on; management 0: disabled."""

    proxy: int
    management: int
    metrics: int


@dataclass(frozen=True, slots=True)
class MachineDir:
    """The directory; its last component is the machine's name."""

    path: Path

    def __post_init__(self) -> None:
        # `stop` removes what it is given: nothing but a machine's own directory may pass.
        if not self.path.is_absolute() or not _NAME.fullmatch(self.path.name) or ".." in self.path.parts:
            raise SecbeatError("MACHINE_INVALID", why=f"{self.path} is no path of a machine (…/<pool>-<8 hex digits>)")

    @property
    def name(self) -> str:
        return self.path.name

    @property
    def config(self) -> Path:
        return self.path / "node.toml"

    @property
    def pid_file(self) -> Path:
        return self.path / "pid"

    @property
    def log(self) -> Path:
        return self.path / "logs" / "node.log"

    def process(self) -> Identity | None:
        """The machine's process if it runs."""
        identity = read_pid_file(self.pid_file)
        return identity if identity is not None and identity.running else None

    def make(self) -> None:
        """Create the directory and its parents, 0700.

        Raises:
            SecbeatError: it cannot be made, or something else is in its place (MACHINE_DIRECTORY).
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
            mode = self.path.lstat().st_mode
        except OSError as error:
            raise unusable(self.path, error) from None
        if not stat.S_ISDIR(mode):
            raise SecbeatError("MACHINE_DIRECTORY", why=f"{self.path} is a symbolic link")

    @contextmanager
    def locked(self, seconds: float) -> Iterator[bool]:
        """Keep other starts and stops away; yields False if the directory does not exist.

        Raises:
            SecbeatError: somebody else works on it for longer than ``seconds`` (MACHINE_BUSY); MACHINE_DIRECTORY.
        """
        deadline = time.monotonic() + seconds
        while True:
            handle = self._try_lock()
            if handle is not None or not self._exists():
                break
            if time.monotonic() >= deadline:
                raise SecbeatError("MACHINE_BUSY", why=f"{self.path} stayed locked for {seconds:.0f} s")
            time.sleep(0.02)
        try:
            yield handle is not None
        finally:
            if handle is not None:
                os.close(handle)

    def _exists(self) -> bool:
        return os.path.lexists(self.path)

    def _try_lock(self) -> int | None:
        try:
            handle = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except FileNotFoundError:
            return None
        except OSError as error:
            # A file where the directory of all machines should be: then this machine is not there either.
            if isinstance(error, NotADirectoryError) and not self._exists():
                return None
            raise unusable(self.path, error) from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # A stop may have removed the directory, and a start made a new one, while we were about to lock.
            if os.path.samestat(os.fstat(handle), self.path.lstat()):
                return handle
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(handle)
        return None

    def write_tags(self, tags: Tags, address: str, ports: Ports) -> None:
        """Write ``machine.json``."""
        body = {"v": 1, **asdict(tags), "name": tags.name, "address": address, "ports": asdict(ports)}
        write_whole(self.path / "machine.json", json.dumps(body, indent=2) + "\n")

    def read_tags(self) -> dict[str, Any] | None:
        """``machine.json``, or None if it is absent.

        Raises:
            OSError: unreadable or malformed.
        """
        return _json_of(self.path / "machine.json")

    def remove(self) -> None:
        """Remove the directory, its tags last: whatever interrupts it, the machine stays listed and can be stopped.

        Raises:
            SecbeatError: something in it cannot be removed (MACHINE_DIRECTORY), or it is not a machine's.
        """
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - names are what is compared
            if names and _OURS.isdisjoint(names):
                raise SecbeatError("MACHINE_DIRECTORY", why=f"{self.path} holds none of a machine's files")
            for name in names:
                if name != "machine.json":
                    _remove(self.path / name)
            (self.path / "machine.json").unlink(missing_ok=True)
            self.path.rmdir()
        except FileNotFoundError:
            return
        except OSError as error:
            raise unusable(self.path, error) from None


def read_join(directory: Path) -> dict[str, Any] | None:
    """The ids in a machine's ``join.json``, which is there before the machine is; None if it is absent.

    Raises:
        OSError: unreadable or malformed.
    """
    return _json_of(directory / "join.json")


def unusable(path: Path, error: OSError) -> SecbeatError:
    """The error that names the directory and what the system said."""
    where = error.filename or path
    return SecbeatError("MACHINE_DIRECTORY", why=f"{where}: {error.strerror or error}")


def _json_of(path: Path) -> dict[str, Any] | None:
    try:
        data = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        raise OSError(f"{path} is not JSON") from None
    if not isinstance(data, dict):
        raise OSError(f"{path} is not a JSON object")
    return data


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
