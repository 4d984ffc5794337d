"""The kinds of values that a configuration key can hold, and how a key says whether a change of it is live."""

from __future__ import annotations

import re
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, SecretStr

DEFAULT_MANAGEMENT_TOKEN = "secure-management-token-change-in-production"  # noqa: S105 - public: the guide prints it
_PLACEHOLDER = re.compile(r"\$\(|\$\{|^\s*$|^changeme$", re.IGNORECASE)


def live(default: Any = ..., **kwargs: Any) -> Any:
    """A key that SIGHUP applies."""
    return Field(default, json_schema_extra={"reload": "live"}, **kwargs)


def restart(default: Any = ..., **kwargs: Any) -> Any:
    """A key that is read once, at the start."""
    return Field(default, json_schema_extra={"reload": "restart"}, **kwargs)


def is_placeholder(value: str) -> bool:
    """Whether ``value`` is empty, ``changeme`` or unexpanded shell syntax: publicly known, so no secret."""
    return bool(_PLACEHOLDER.search(value))


def _no_placeholder(value: SecretStr) -> SecretStr:
    if is_placeholder(value.get_secret_value()):
        raise ValueError("is a placeholder, not a secret (generate one: openssl rand -hex 32)")
    return value


def _address(value: str) -> str:
    host, _, port = value.rpartition(":")
    if not host or not (port.isascii() and port.isdigit()) or not 0 <= int(port) <= 65535:
        raise ValueError("must be host:port, e.g. 127.0.0.1:3030 or [::1]:3030")
    return value


def split_address(value: str) -> tuple[str, int]:
    """``host:port`` (IPv6 in brackets) as ``(host, port)``."""
    host, _, port = value.rpartition(":")
    return host.strip("[]"), int(port)


def _network(value: Any) -> Any:
    return ip_network(value, strict=False) if isinstance(value, str) else value


Secret = Annotated[SecretStr, AfterValidator(_no_placeholder)]
Address = Annotated[str, AfterValidator(_address)]
Network = Annotated[IPv4Network | IPv6Network, BeforeValidator(_network)]
Fraction = Annotated[float, Field(ge=0.0, le=1.0)]
Seconds = Annotated[float, Field(ge=0.0, le=86400.0 * 365)]
Label = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]


class Table(BaseModel):
    """A TOML table: unknown keys are errors, NaN and infinities too."""

    model_config = ConfigDict(extra="forbid", validate_default=True, arbitrary_types_allowed=True, allow_inf_nan=False)
