"""The operator's Ansible project: playbooks and inventories by name, never by a path from elsewhere."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator
from pathlib import Path

from secbeat.errors import ConfigError

_NAME = re.compile(r"^[a-z0-9][a-z0-9_-]{0,62}$")
_SKIPPED = frozenset({"molecule", "__pycache__", ".ansible", ".git"})


def default_root() -> Path:
    """Ours: the bundle of an installed provisioner, else the checkout that this file lies in."""
    package = Path(__file__).resolve().parent.parent
    bundle = package / "_bundle"
    return bundle if (bundle / "playbooks").is_dir() else package.parent


class Project:
    """A directory with ``playbooks/``, ``inventories/`` and perhaps ``ansible.cfg``."""

    def __init__(self, root: Path) -> None:
        self.root = root.resolve()
        self._digests: dict[str, tuple[object, str]] = {}

    def playbook(self, name: str) -> Path:
        """The file of a playbook.

        Raises:
            ConfigError: no such playbook, or not within the project (PLAYBOOK_NOT_FOUND).
        """
        return self._find("playbooks", name, (".yml", ".yaml"))

    def inventory(self, name: str) -> Path:
        """The directory or file of an inventory.

        Raises:
            ConfigError: no such inventory, or not within the project (PLAYBOOK_NOT_FOUND).
        """
        return self._find("inventories", name, ("", ".yml", ".yaml", ".ini"))

    def _find(self, folder: str, name: str, suffixes: tuple[str, ...]) -> Path:
        if not _NAME.fullmatch(name):
            raise ConfigError("PLAYBOOK_NOT_FOUND", why=f"{name[:100]!r} is not a name of one of {folder}")
        for suffix in suffixes:
            path = self.root / folder / f"{name}{suffix}"
            if path.exists():
                resolved = path.resolve()
                if not resolved.is_relative_to(self.root / folder):
                    raise ConfigError("PLAYBOOK_NOT_FOUND", why=f"{path} leads out of {self.root / folder}")
                return resolved
        raise ConfigError("PLAYBOOK_NOT_FOUND", why=f"{self.root / folder} has no {name!r}")

    def files(self, inventory: str) -> Iterator[Path]:
        """Every file that a run may read: all playbooks and roles, the inventory, ``ansible.cfg``; sorted.

        Raises:
            ConfigError: a symbolic link leads out of the project (PLAYBOOK_NOT_FOUND).
        """
        config = self.root / "ansible.cfg"
        if config.is_file():
            yield config
        yield from self._walk(self.root / "playbooks")
        place = self.inventory(inventory)
        yield from self._walk(place) if place.is_dir() else [place]

    def _walk(self, top: Path) -> Iterator[Path]:
        for directory, folders, files in os.walk(top):
            folders[:] = sorted(set(folders) - _SKIPPED)
            for name in sorted(files):
                path = Path(directory, name)
                if path.is_symlink() and not path.resolve().is_relative_to(self.root):
                    raise ConfigError("PLAYBOOK_NOT_FOUND", why=f"{path} leads out of {self.root}")
                if path.is_file():
                    yield path

    def digest(self, inventory: str) -> str:
        """SHA-256 over names and contents of `files`; read again only when one of them has changed."""
        files = list(self.files(inventory))
        seen = tuple((str(path), (stat := path.stat()).st_mtime_ns, stat.st_size, stat.st_ino) for path in files)
        known = self._digests.get(inventory)
        if known is not None and known[0] == seen:
            return known[1]
        whole = hashlib.sha256()
        for path in files:
            content = hashlib.sha256(path.read_bytes()).hexdigest()
            whole.update(f"{path.relative_to(self.root)}\0{content}\n".encode())
        self._digests[inventory] = (seen, whole.hexdigest())
        return whole.hexdigest()
