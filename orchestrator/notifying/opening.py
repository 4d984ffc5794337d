"""A notifier as the configuration asks for it."""

from __future__ import annotations

from orchestrator.notifying.notifier import Notifier
from orchestrator.notifying.posting import HttpPoster
from orchestrator.reconcile.records import Records
from secbeat import signing
from secbeat.auth import read_secret
from secbeat.clock import Clock
from secbeat.errors import ConfigError
from secbeat.settings import NotificationsSettings


def signing_secret(settings: NotificationsSettings) -> str | None:
    """The secret that signs notifications, if somebody is to be notified.

    Raises:
        ConfigError: SECRET_UNREADABLE, SECRET_PLACEHOLDER.
    """
    if settings.url is None or settings.secret_file is None:
        return None
    secret = read_secret(settings.secret_file)
    try:
        return signing.check_secret(secret)
    except ValueError as error:
        raise ConfigError("SECRET_UNREADABLE", why=f"{settings.secret_file}: {error}") from None


def open_notifier(
    settings: NotificationsSettings, secret: str | None, records: Records, clock: Clock
) -> Notifier | None:
    """A notifier to the configured receiver; None: there is none."""
    if settings.url is None or secret is None:
        return None
    return Notifier(
        url=settings.url,
        secret=secret,
        kinds=settings.kinds,
        poster=HttpPoster(settings.timeout_seconds),
        clock=clock,
        cluster_id=lambda: records.cluster_id,
    )
