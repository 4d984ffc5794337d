"""The node's configuration: wildcard addresses become the machine's own; nothing else is touched."""

from __future__ import annotations

import re
import tomllib
from dataclasses import dataclass
from typing import Any

from provisioner.local.directory import Ports
from secbeat.errors import SecbeatError

_WILDCARD = re.compile(r'^(\s*(listen_addr|metrics_addr|public_ip)\s*=\s*")0\.0\.0\.0(:\d+)?("\s*)$', re.MULTILINE)
_KEYS = (("node", "listen_addr"), ("node", "metrics_addr"), ("node", "public_ip"), ("management", "listen_addr"))


@dataclass(frozen=True, slots=True)
class NodeConfig:
    """What the launcher must know of a ``node.toml``, and its text."""

    text: str
    ports: Ports
    token_file: str | None
    drain_seconds: float

    def narrowed(self, address: str) -> str:
        """The text with each wildcard listen address (and ``public_ip``) replaced by ``address``.

        Raises:
            SecbeatError: one does not stand on a line of its own as ``key = "0.0.0.0:PORT"`` (MACHINE_INVALID).
        """
        text = _WILDCARD.sub(rf"\g<1>{address}\g<3>\g<4>", self.text)
        wanted = tomllib.loads(self.text)
        for table, key in _KEYS:
            value = wanted.get(table, {}).get(key)
            if isinstance(value, str) and value.partition(":")[0] == "0.0.0.0":  # noqa: S104 - replaced, not bound
                wanted[table][key] = value.replace("0.0.0.0", address)  # noqa: S104 - same
        # A text that only looks like such a line (inside a string, in another table) must not have been touched.
        if tomllib.loads(text) != wanted:
            raise SecbeatError("MACHINE_INVALID", why="a listen address does not stand on a line of its own")
        return text


def read_config(text: str) -> NodeConfig:
    """Read a node's configuration.

    Raises:
        SecbeatError: not TOML, or an address without a port (MACHINE_INVALID).
    """
    try:
        data = tomllib.loads(text)
        node, management = _table(data, "node"), _table(data, "management")
        enabled = management.get("enabled", True)
        ports = Ports(
            proxy=_port(node.get("listen_addr", "0.0.0.0:8443")),
            metrics=_port(node.get("metrics_addr", "127.0.0.1:9090")),
            management=_port(management.get("listen_addr", "127.0.0.1:9999")) if enabled else 0,
        )
        token_file = management.get("auth_token_file")
        drain = float(management.get("shutdown_grace_period", 60)) + float(node.get("propagation_seconds", 10))
    except (ValueError, TypeError, AttributeError) as error:
        raise SecbeatError("MACHINE_INVALID", why=f"node.toml: {error}") from None
    return NodeConfig(text, ports, token_file if "join_file" not in node else None, drain)


def _table(data: dict[str, Any], name: str) -> dict[str, Any]:
    table = data.get(name, {})
    if not isinstance(table, dict):
        raise TypeError(f"{name} is not a table")
    return table


def _port(address: object) -> int:
    _, _, port = str(address).rpartition(":")
    if not port.isdigit() or not 0 < int(port) < 65536:
        raise ValueError(f"{str(address)[:80]!r} is no address with a port")
    return int(port)
