"""The environment of a job process: made from nothing, so that no secret of the service can be in it."""

from __future__ import annotations

import configparser
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from provisioner.engine.marks import MARK

_KEPT = ("HOME", "USER", "LOGNAME", "TZ", "SSH_AUTH_SOCK")
_FALLBACK_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def base(environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """For the fork server: where programs are, who we are, UTF-8 (Ansible refuses to start without)."""
    source = os.environ if environ is None else environ
    kept = {name: source[name] for name in _KEPT if source.get(name)}
    programs = f"{Path(sys.executable).parent}:{source.get('PATH') or _FALLBACK_PATH}"
    return {"HOME": "/", **kept, "PATH": programs, "LANG": "C.UTF-8", "LC_ALL": "C.UTF-8"}


def for_job(mark: str, work_dir: Path, project_root: Path) -> dict[str, str]:
    """For one job's process and all that it starts."""
    return {
        **base(),
        MARK: mark,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": str(work_dir / "tmp"),
        # ansible-runner switches this off unless it is set; the operator's ansible.cfg decides, and else it is on.
        "ANSIBLE_HOST_KEY_CHECKING": str(_host_key_checking(project_root / "ansible.cfg")),
    }


def _host_key_checking(path: Path) -> bool:
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(path, encoding="utf-8")
        return parser.getboolean("defaults", "host_key_checking", fallback=True)
    except (configparser.Error, ValueError, UnicodeDecodeError):
        return True
