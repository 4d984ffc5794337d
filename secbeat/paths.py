"""The state directory: where it is, what lies in it, who may use it."""

from __future__ import annotations

import fcntl
import json
import os
from dataclasses import dataclass, field
from io import TextIOWrapper
from pathlib import Path
from typing import Any

from secbeat.errors import ConfigError


def default_state_dir() -> Path:
    """``$SECBEAT_STATE``, else ``$XDG_STATE_HOME/secbeat``, else ``~/.local/state/secbeat``."""
    if chosen := os.environ.get("SECBEAT_STATE"):
        return Path(chosen)
    base = os.environ.get("XDG_STATE_HOME")
    return (Path(base) if base else Path.home() / ".local" / "state") / "secbeat"


@dataclass
class StateDir:
    """A state directory and the names in it. Everything is 0700/0600: secrets lie here."""

    path: Path
    _lock: TextIOWrapper | None = field(default=None, repr=False)

    @property
    def secrets(self) -> Path:
        return self.path / "secrets"

    @property
    def nats(self) -> Path:
        return self.path / "nats"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    @property
    def machines(self) -> Path:
        return self.path / "machines"

    @property
    def jobs(self) -> Path:
        return self.path / "jobs"

    @property
    def run_file(self) -> Path:
        return self.path / "run.json"

    @property
    def tokens_file(self) -> Path:
        return self.secrets / "tokens.json"

    def ensure(self) -> StateDir:
        """Make the directory.

        Raises:
            ConfigError: it cannot be made or written (STATE_NOT_WRITABLE).
        """
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError("STATE_NOT_WRITABLE", why=f"{self.path}: {error.strerror}") from None
        if not os.access(self.path, os.W_OK | os.X_OK):
            raise ConfigError("STATE_NOT_WRITABLE", why=f"{self.path}: this user may not write to it")
        return self

    def lock(self, name: str = "lock", holder: str = "a running 'secbeat up'") -> StateDir:
        """Hold the directory for this process's life; a second holder is refused.

        Args:
            name: the lock's file: those who may work beside each other take different ones.
            holder: who holds it, for the error.

        Raises:
            ConfigError: another process holds it (STATE_IN_USE).
        """
        path = self.ensure().path / name
        try:
            handle = path.open("a+")
        except OSError as error:
            raise ConfigError("STATE_NOT_WRITABLE", why=f"{path}: {error.strerror}") from None
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            handle.seek(0)
            pid = handle.read(32).strip()
            handle.close()
            who = f"{holder} (pid {pid})" if pid.isdigit() else holder
            raise ConfigError("STATE_IN_USE", why=f"{self.path} is in use by {who}") from None
        handle.truncate(0)
        handle.write(f"{os.getpid()}\n")
        handle.flush()
        self._lock = handle
        return self

    def unlock(self) -> None:
        """Let the directory go; the lock also ends with the process."""
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def read_run(self) -> dict[str, Any] | None:
        """What ``up`` wrote about its running services, or None."""
        try:
            data = json.loads(self.run_file.read_text())
        except (OSError, ValueError):
            return None
        return data if isinstance(data, dict) else None
