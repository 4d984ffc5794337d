"""SIGHUP: live keys and API tokens are read again; of the others it is said that they want a restart."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from pydantic import BaseModel

from secbeat.auth import Principal, TokenBook
from secbeat.errors import ConfigError
from secbeat.service import Stop
from secbeat.settings import Loaded, Settings, compare, load

log = logging.getLogger("provisioner")

_OURS = ("provisioner.", "blueprints.")


class Tokens:
    """The API tokens, as the file had them when it was last readable."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._book = TokenBook.load(path)

    def check(self, token: str) -> Principal | None:
        """The caller that holds ``token``, or None."""
        return self._book.check(token)

    def reload(self) -> None:
        """Read the file again; a broken one changes nothing."""
        try:
            self._book = TokenBook.load(self._path)
        except ConfigError as error:
            log.warning("The API tokens are not reloaded: %s", error.why, extra={"action": "reload_refused"})


def live_part(old: Settings, new: Settings) -> Settings:
    """``old`` with the live keys of ``[provisioner]`` and of the blueprints that both have."""
    blueprints = {
        name: _with_live(one, new.blueprints[name]) if name in new.blueprints else one
        for name, one in old.blueprints.items()
    }
    return old.model_copy(
        update={"provisioner": _with_live(old.provisioner, new.provisioner), "blueprints": blueprints}
    )


def _with_live(old: Any, new: BaseModel) -> Any:
    live = {
        name: getattr(new, name)
        for name, field in type(new).model_fields.items()
        if isinstance(field.json_schema_extra, Mapping) and field.json_schema_extra.get("reload") == "live"
    }
    return old.model_copy(update=live)


def reread(loaded: Loaded, old: Settings) -> Settings | None:
    """The settings to go on with; None, and the old ones stay, if the file is not acceptable. Flags still win."""
    flags = {key: _value(loaded.settings, key) for key, source in loaded.sources.items() if source.startswith("flag")}
    try:
        new = load(loaded.path, overrides=flags).settings
    except ConfigError as error:
        log.warning("The configuration is not reloaded: %s", error.why, extra={"action": "reload_refused"})
        return None
    changes = [change for change in compare(old, new) if change.key.startswith(_OURS)]
    applied = [change.key for change in changes if change.reload == "live"]
    later = [change.key for change in changes if change.reload == "restart"]
    log.info("Configuration reloaded: %s", ", ".join(applied) or "no change", extra={"action": "reloaded"})
    if later:
        log.warning("These keys change at the next start: %s", ", ".join(later), extra={"action": "reload_restart"})
    return live_part(old, new)


def _value(settings: Settings, dotted: str) -> object:
    found: object = settings
    for part in dotted.split("."):
        found = found[part] if isinstance(found, dict) else getattr(found, part)
    return found


async def reload_on_request(stop: Stop, loaded: Loaded, tokens: Tokens, apply: Callable[[Settings], None]) -> None:
    """Serve until cancelled; ``apply`` gets the settings in force."""
    current = loaded.settings
    while True:
        await stop.reload.wait()
        stop.reload.clear()
        tokens.reload()
        settings = reread(loaded, current)
        if settings is not None:
            current = settings
            apply(settings)
