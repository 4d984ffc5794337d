"""Settings: one TOML file, the environment over it, flags over both."""

from __future__ import annotations

from secbeat.settings.changes import Change, compare
from secbeat.settings.load import Loaded, load
from secbeat.settings.model import (
    BlueprintSettings,
    ManagementSettings,
    NatsSettings,
    NodeSettings,
    NotificationKind,
    NotificationsSettings,
    OrchestratorSettings,
    PolicySettings,
    PoolSettings,
    ProvisionerSettings,
    Settings,
    TelemetrySettings,
    TlsSettings,
    is_placeholder,
    split_address,
)

__all__ = [
    "BlueprintSettings",
    "Change",
    "Loaded",
    "ManagementSettings",
    "NatsSettings",
    "NodeSettings",
    "NotificationKind",
    "NotificationsSettings",
    "OrchestratorSettings",
    "PolicySettings",
    "PoolSettings",
    "ProvisionerSettings",
    "Settings",
    "TelemetrySettings",
    "TlsSettings",
    "compare",
    "is_placeholder",
    "load",
    "split_address",
]
