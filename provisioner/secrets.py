"""The secrets that this service holds: from 0600 files, into memory, and into the redactor."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from secbeat import signing
from secbeat.auth import read_secret
from secbeat.errors import ConfigError
from secbeat.settings import NatsSettings, ProvisionerSettings


@dataclass(frozen=True)
class Secrets:
    """``webhook``: those valid now, two during a rotation."""

    webhook: tuple[str, ...] = ()
    service_token: str | None = None
    others: tuple[str, ...] = ()

    @classmethod
    def load(cls, settings: ProvisionerSettings, nats: NatsSettings, directory: Path) -> Secrets:
        """Read the files that are configured; unset, those of the state directory are used where they exist.

        Raises:
            ConfigError: SECRET_UNREADABLE, SECRET_PLACEHOLDER.
        """
        current = _read(settings.webhook_secret_file, directory / "webhook.secret")
        previous = _read(settings.previous_webhook_secret_file, None)
        webhook = tuple(one for one in (current, previous) if one is not None)
        for secret in webhook:
            try:
                signing.check_secret(secret)
            except ValueError as error:
                raise ConfigError("SECRET_UNREADABLE", why=f"provisioner.webhook_secret_file: {error}") from None
        token = _read(settings.service_token_file, directory / "service.token")
        creds = _read(nats.creds_file, None)
        return cls(webhook, token, () if creds is None else (creds,))

    def values(self) -> Iterator[str]:
        """All of them, for the redactor."""
        yield from self.webhook
        if self.service_token is not None:
            yield self.service_token
        yield from self.others


def _read(configured: Path | None, default: Path | None) -> str | None:
    if configured is not None:
        return read_secret(configured)
    return read_secret(default) if default is not None and default.exists() else None
