"""Keep secrets out of what the command prints: by kind, by name, and inside addresses."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from typing import Any

HIDDEN = "(hidden)"
_NAME = re.compile(r"(secret|token|passw|credential|api_?key|private_?key|seed)", re.IGNORECASE)
_LOGIN = re.compile(r"(?P<scheme>[a-z][a-z0-9+.-]*://)[^/@\s]*@", re.IGNORECASE)
_QUERY = re.compile(r"(?P<name>[?&](?:[^=&\s]*(?:secret|token|key|sig|passw)[^=&\s]*)=)[^&\s]*", re.IGNORECASE)


def redact(key: str, value: Any) -> Any:
    """``value`` of the dotted ``key`` as plain data, without what is secret in it.

    Names of files that hold secrets are shown: they are what a person looks for.
    """
    name = key.rpartition(".")[2]
    if type(value).__name__ == "SecretStr":
        return HIDDEN
    if isinstance(value, dict):
        return {inner: redact(f"{key}.{inner}", item) for inner, item in value.items()}
    if isinstance(value, list | tuple):
        return [redact(key, item) for item in value]
    if isinstance(value, Path | IPv4Network | IPv6Network):
        return str(value)
    if isinstance(value, str):
        return HIDDEN if _NAME.search(name) and not name.endswith(("_file", "_url")) else redact_text(value)
    return value


def redact_text(text: str) -> str:
    """``text`` without logins and keys inside addresses."""
    return _QUERY.sub(rf"\g<name>{HIDDEN}", _LOGIN.sub(rf"\g<scheme>{HIDDEN}@", text))
