"""SIGHUP: the live keys of a changed configuration, and a word about those that want a restart."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from secbeat.errors import ConfigError
from secbeat.settings import OrchestratorSettings, Settings, compare, load

log = logging.getLogger("orchestrator")


def live_part(old: Settings, new: Settings) -> Settings:
    """``old`` with the pools and the live keys of ``[orchestrator]`` of ``new``."""
    live = {
        name: getattr(new.orchestrator, name)
        for name, field in OrchestratorSettings.model_fields.items()
        if isinstance(field.json_schema_extra, Mapping) and field.json_schema_extra.get("reload") == "live"
    }
    return old.model_copy(update={"orchestrator": old.orchestrator.model_copy(update=live), "pools": dict(new.pools)})


def reread(path: Path | None, old: Settings, flags: Mapping[str, object]) -> Settings | None:
    """The settings to go on with; None, and the old ones stay, if the file is not acceptable. ``flags`` still win."""
    try:
        new = load(path, overrides=flags).settings
    except ConfigError as error:
        log.warning("The configuration is not reloaded: %s", error.why, extra={"action": "reload_refused"})
        return None
    changes = [change for change in compare(old, new) if change.key.startswith(("orchestrator.", "pools."))]
    applied = [change.key for change in changes if change.reload == "live"]
    later = [change.key for change in changes if change.reload == "restart"]
    log.info("Configuration reloaded: %s", ", ".join(applied) or "no change", extra={"action": "reloaded"})
    if later:
        log.warning("These keys change at the next start: %s", ", ".join(later), extra={"action": "reload_restart"})
    return live_part(old, new)
