"""What an instance consists of: addresses, which NATS, and what each service is told beyond the user's own settings."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import urlsplit

from secbeat.errors import ConfigError
from secbeat.paths import StateDir
from secbeat.settings import Loaded, split_address
from secbeat.up.ports import Reservations, check_free
from secbeat.up.secrets import Secrets

_NOT_DIALLED = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - replaced, not bound


@dataclass(frozen=True, slots=True)
class Addresses:
    """``host:port`` of each listener; without a provisioner its address is None."""

    orchestrator: str
    metrics: str
    provisioner: str | None


@dataclass(frozen=True, slots=True)
class Urls:
    """Where the services answer."""

    orchestrator: str
    provisioner: str | None
    metrics: str
    nats: str


def owns_nats(loaded: Loaded) -> bool:
    """Whether the instance starts a NATS server of its own: it does, unless the user named one."""
    return "nats.url" not in loaded.sources


def addresses(loaded: Loaded, reservations: Reservations, *, provisioner: bool, before: Mapping[str, Any]) -> Addresses:
    """The addresses of this start: port 0 becomes a free port, the one of the last start if it can be had.

    Args:
        loaded: the user's settings.
        reservations: keeps chosen ports ours.
        provisioner: whether there is one.
        before: the run file of the last start.

    Raises:
        ConfigError: PORT_IN_USE or ADDRESS_UNAVAILABLE, naming the key.
    """
    settings = loaded.settings
    wanted = [
        ("orchestrator.listen_addr", settings.orchestrator.listen_addr, "url"),
        ("orchestrator.metrics_addr", settings.orchestrator.metrics_addr, "metrics_url"),
        ("provisioner.listen_addr", settings.provisioner.listen_addr, "provisioner_url"),
    ]
    found = []
    for key, address, written in wanted if provisioner else wanted[:2]:
        host, port = split_address(address)
        if port:
            check_free(key, address)
        else:
            port = reservations.free(host, preferred=_port_of(before.get(written)))
        found.append(f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
    return Addresses(found[0], found[1], found[2] if provisioner else None)


def taken(before: Mapping[str, Any]) -> list[str]:
    """Addresses of the start that wrote this run file on which somebody still listens."""
    found = []
    for key in ("url", "provisioner_url", "metrics_url"):
        port = _port_of(before.get(key))
        address = f"{urlsplit(str(before[key])).hostname}:{port}" if port else ""
        try:
            if address:
                check_free(key, address)
        except ConfigError as error:
            if error.code == "PORT_IN_USE":
                found.append(address)
    return found


def urls(loaded: Loaded, where: Addresses, nats_url: str) -> Urls:
    """The URLs that belong to the addresses."""
    settings = loaded.settings
    secure = settings.orchestrator.tls.cert_file is not None
    provisioner = where.provisioner and _url(where.provisioner, secure=settings.provisioner.tls.cert_file is not None)
    return Urls(
        orchestrator=_url(where.orchestrator, secure=secure),
        provisioner=provisioner,
        metrics=_url(where.metrics, secure=False) + "/metrics",
        nats=nats_url,
    )


Service = Literal["orchestrator", "provisioner"]


def environment(
    service: Service, loaded: Loaded, *, state: StateDir, secrets: Secrets, where: Addresses, found: Urls
) -> dict[str, str]:
    """The environment variables that make ``service`` a part of this instance.

    What the user has set keeps its value, except for the address, of which only a port 0 is filled in.
    """
    nats: dict[str, Any] = {}
    if secrets.nats is not None:
        nats = {"nats.url": found.nats, "nats.creds_file": secrets.nats.creds_file(service)}
    forced: dict[str, Any]
    if service == "orchestrator":
        forced = {"orchestrator.listen_addr": where.orchestrator, "orchestrator.metrics_addr": where.metrics}
        defaults = _orchestrator_defaults(loaded, state, secrets, found)
    else:
        forced = {"provisioner.listen_addr": where.provisioner}
        defaults = {
            "provisioner.state_dir": state.path,
            "provisioner.orchestrator_url": found.orchestrator,
            "provisioner.webhook_secret_file": secrets.webhook_file,
            "provisioner.service_token_file": secrets.token_file("service"),
            "provisioner.log_file": state.logs / "provisioner.log",
        }
    values = {**{key: value for key, value in defaults.items() if key not in loaded.sources}, **forced, **nats}
    return variables(values)


def _orchestrator_defaults(loaded: Loaded, state: StateDir, secrets: Secrets, found: Urls) -> dict[str, Any]:
    values: dict[str, Any] = {
        "orchestrator.state_dir": state.path,
        "orchestrator.webhook_secret_file": secrets.webhook_file,
        "orchestrator.log_file": state.logs / "orchestrator.log",
    }
    if secrets.nats is not None:
        values["nats.issuer_seed_file"] = secrets.nats.issuer_seed_file
        values["nats.account_file"] = secrets.nats.account_file
    # A user's own receiver stays; ours can destroy what it has made.
    if found.provisioner and "orchestrator.provisioning_webhook_url" not in loaded.sources:
        values["orchestrator.provisioning_webhook_url"] = f"{found.provisioner}/provision"
        values["orchestrator.deprovisioning_webhook_url"] = f"{found.provisioner}/deprovision"
    if loaded.settings.management.auth_token is None:
        values["management.auth_token_file"] = secrets.management_file
    return values


def variables(values: Mapping[str, Any]) -> dict[str, str]:
    """Dotted settings as environment variables: ``nats.url`` is ``SECBEAT_NATS__URL``."""
    return {
        "SECBEAT_" + key.upper().replace(".", "__"): json.dumps(value) if _is_plain(value) else str(value)
        for key, value in values.items()
    }


def _is_plain(value: Any) -> bool:
    return isinstance(value, bool | int | float | list)


def _url(address: str, *, secure: bool) -> str:
    host, port = split_address(address)
    host = _NOT_DIALLED.get(host, host)
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _port_of(url: Any) -> int:
    try:
        return urlsplit(str(url or "")).port or 0
    except ValueError:
        return 0
