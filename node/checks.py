"""What must be right before a node starts: tokens and addresses that would hand the node to the network."""

from __future__ import annotations

from ipaddress import ip_address

from secbeat.auth import read_secret
from secbeat.errors import ConfigError
from secbeat.settings import ManagementSettings, NodeSettings, split_address
from secbeat.settings.model import DEFAULT_MANAGEMENT_TOKEN


def configured_token(management: ManagementSettings) -> str | None:
    """The token of ``[management]``, from the file or the value.

    Raises:
        ConfigError: SECRET_UNREADABLE, SECRET_PLACEHOLDER.
    """
    token = None
    if management.auth_token_file is not None:
        token = read_secret(management.auth_token_file)
    elif management.auth_token is not None:
        token = management.auth_token.get_secret_value()
    if token == DEFAULT_MANAGEMENT_TOKEN and not management.allow_default_token:
        raise ConfigError("SECRET_PLACEHOLDER", why=f"{management.auth_token_file} holds the literal of the guide")
    return token


def require_token(management: ManagementSettings, token: str | None) -> None:
    """A node without credentials of its own needs the configured token.

    Raises:
        ConfigError: MANAGEMENT_TOKEN_MISSING.
    """
    if management.enabled and token is None:
        raise ConfigError(
            "MANAGEMENT_TOKEN_MISSING", why="neither auth_token nor auth_token_file is set, nor a join_file"
        )


def check_addresses(node: NodeSettings, management: ManagementSettings) -> None:
    """Refuse plain HTTP beyond loopback, unless it is knowingly allowed.

    Raises:
        ConfigError: BIND_INSECURE, CONFIG_INVALID.
    """
    try:
        ip_address(node.public_ip)
    except ValueError:
        raise ConfigError("CONFIG_INVALID", why=f"node.public_ip: {node.public_ip!r} is not an address") from None
    for key, address, used in (
        ("management.listen_addr", management.listen_addr, management.enabled),
        ("node.metrics_addr", node.metrics_addr, True),
    ):
        if used and not management.allow_plaintext and not _is_loopback(address):
            raise ConfigError(
                "BIND_INSECURE",
                why=f"{key} = {address!r} is plain HTTP beyond loopback",
                fix="Bind 127.0.0.1, or knowingly set [management] allow_plaintext = true",
            )


def _is_loopback(address: str) -> bool:
    host, _ = split_address(address)
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
