"""Plain HTTP beyond loopback: refused before anything listens, by the service itself and by who starts it."""

from __future__ import annotations

from ipaddress import ip_address

from secbeat.errors import ConfigError
from secbeat.settings import OrchestratorSettings, ProvisionerSettings, split_address


def check_orchestrator(settings: OrchestratorSettings) -> None:
    """Raises ConfigError: BIND_INSECURE."""
    encrypted = settings.tls.cert_file is not None
    _check("orchestrator.listen_addr", settings.listen_addr, allowed=encrypted or settings.allow_plaintext)
    _check("orchestrator.metrics_addr", settings.metrics_addr, allowed=settings.allow_plaintext)


def check_provisioner(settings: ProvisionerSettings) -> None:
    """Raises ConfigError: BIND_INSECURE."""
    encrypted = settings.tls.cert_file is not None
    _check("provisioner.listen_addr", settings.listen_addr, allowed=encrypted or settings.allow_plaintext)


def _check(key: str, address: str, *, allowed: bool) -> None:
    host, _ = split_address(address)
    try:
        loopback = ip_address(host).is_loopback
    except ValueError:
        loopback = host == "localhost"
    if not (loopback or allowed):
        raise ConfigError("BIND_INSECURE", why=f"{key} is {address}, without TLS")
