"""The environment of a job process: made from nothing, so that no secret of the service can be in it."""

from __future__ import annotations

import configparser
import os
import pwd
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


def for_job(mark: str, work_dir: Path, project_root: Path, home: Path | None = None) -> dict[str, str]:
    """For one job's process and all that it starts.

    Args:
        mark: says whose processes they are.
        work_dir: the job's private directory; what is left in its ``tmp`` goes with it.
        project_root: where the operator's ``ansible.cfg`` lies.
        home: used instead of the user's own, see `substitute_home`.
    """
    temporary = str(work_dir / "tmp")
    return {
        **base(),
        **(_at_home(home, project_root) if home is not None else {}),
        MARK: mark,
        "TMPDIR": temporary,
        "ANSIBLE_NOCOLOR": "1",
        "ANSIBLE_LOCAL_TEMP": temporary,
        # ansible-runner switches this off unless it is set; the operator's ansible.cfg decides, and else it is on.
        "ANSIBLE_HOST_KEY_CHECKING": str(_host_key_checking(project_root)),
    }


def substitute_home(ours: Path, environ: Mapping[str, str] | None = None) -> Path | None:
    """``ours``, made if absent, when this user's home cannot be written (system users often have none); else None.

    Ansible keeps its own files there and, on the machine that it manages (which for local jobs is this one), the files
    of each task: without it every host is "unreachable". Both what ``HOME`` says and what the user database says
    count, because Ansible expands ``~user``.

    Raises:
        OSError: ``ours`` cannot be made.
    """
    source = os.environ if environ is None else environ
    try:
        registered = pwd.getpwuid(os.getuid()).pw_dir
    except KeyError:  # a user of a container that no database knows
        registered = ""
    if all(_writable(Path(home or "/nonexistent")) for home in {source.get("HOME"), registered}):
        return None
    ours.mkdir(mode=0o700, parents=True, exist_ok=True)
    return ours


def _writable(home: Path) -> bool:
    return home.is_absolute() and home.is_dir() and os.access(home, os.W_OK | os.X_OK)


def _at_home(home: Path, project_root: Path) -> dict[str, str]:
    """``$HOME`` in the place of tasks' files is expanded on the machine where they are put: there it is that user's."""
    own = _setting(project_root, "remote_tmp")
    return {"HOME": str(home)} | ({} if own else {"ANSIBLE_REMOTE_TMP": "$HOME/.ansible/tmp"})


def _setting(project_root: Path, name: str) -> str:
    return _config(project_root).get("defaults", name, fallback="")


def _host_key_checking(project_root: Path) -> bool:
    try:
        return _config(project_root).getboolean("defaults", "host_key_checking", fallback=True)
    except ValueError:
        return True


def _config(project_root: Path) -> configparser.ConfigParser:
    """The operator's ``ansible.cfg``; empty if there is none, or none that can be read."""
    parser = configparser.ConfigParser(interpolation=None, strict=False)
    try:
        parser.read(project_root / "ansible.cfg", encoding="utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return configparser.ConfigParser(interpolation=None)
    return parser
