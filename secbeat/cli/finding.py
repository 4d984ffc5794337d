"""Which service a command talks to, and with which token.

A flag comes first, then the environment, then what ``secbeat up`` wrote into the state directory, then the default
address without a token. A token is sent only to the address that it belongs to: the one of a run file goes nowhere
else, whatever ``--url`` says.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from secbeat.errors import ConfigError
from secbeat.paths import StateDir, default_state_dir

DEFAULT_URL = "http://127.0.0.1:3030"
DEFAULT_PROVISIONER_URL = "http://127.0.0.1:8000"
Service = Literal["orchestrator", "provisioner"]


@dataclass(frozen=True, slots=True)
class Target:
    """Where a service is; ``source`` says who told us."""

    service: Service
    url: str
    token: str | None
    source: str


def find(
    service: Service, *, url: str | None = None, token_file: Path | None = None, state: Path | None = None
) -> Target:
    """The service's address and token; the arguments are the flags.

    Raises:
        ConfigError: URL_INVALID, SECRET_UNREADABLE.
    """
    directory = state or default_state_dir()
    run = StateDir(directory).read_run() or {}
    key, default, variable = {
        "orchestrator": ("url", DEFAULT_URL, "SECBEAT_URL"),
        "provisioner": ("provisioner_url", DEFAULT_PROVISIONER_URL, "SECBEAT_PROVISIONER_URL"),
    }[service]
    written = run.get(key) if isinstance(run.get(key), str) else None
    if url:
        chosen, source = url, "the flag"
    elif os.environ.get(variable):
        chosen, source = os.environ[variable], variable
    elif written:
        chosen, source = written, f"{directory}/run.json"
    else:
        chosen, source = default, "the default"
    chosen = check_url(chosen)
    return Target(service, chosen, _token(token_file, run, same=written and check_url(written) == chosen), source)


def check_url(url: str) -> str:
    """``url`` without a trailing slash.

    Raises:
        ConfigError: not http or https, no host, or with a login in it (URL_INVALID).
    """
    try:
        parts = urlsplit(url)
        wrong = parts.scheme not in {"http", "https"} or not parts.hostname or parts.username or parts.port == 0
    except ValueError:
        wrong = True
    if wrong or any(ord(char) <= 32 for char in url):
        raise ConfigError("URL_INVALID", why=f"{url.rpartition('@')[2][:200]!r} is not http://HOST:PORT")
    return url.rstrip("/")


def _token(flag: Path | None, run: dict[str, Any], *, same: object) -> str | None:
    if flag is not None:
        return read_token(flag)
    if chosen := os.environ.get("SECBEAT_TOKEN_FILE"):
        return read_token(Path(chosen))
    written = run.get("token_file")
    return read_token(Path(written)) if same and isinstance(written, str) else None


def read_token(path: Path) -> str:
    """The token in a file.

    The same rule as ``secbeat.auth.read_secret``, without that module's imports: this runs in every client command.

    Raises:
        ConfigError: missing, empty, not text, or readable by group or others (SECRET_UNREADABLE).
    """
    try:
        mode = path.stat().st_mode
        text = path.read_text(encoding="ascii").strip()
    except OSError as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: not a token") from None
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise ConfigError("SECRET_UNREADABLE", why=f"{path} has mode {stat.S_IMODE(mode):04o}", fix=f"chmod 600 {path}")
    if not text or not text.isprintable() or " " in text:
        raise ConfigError("SECRET_UNREADABLE", why=f"{path}: empty, or more than one word")
    return text
