"""Blueprints: how a node of a pool is made, with the revision that made it.

A machine is destroyed by the revision that created it: the files of each revision are kept, as a copy, until the last
machine of that revision is gone. As long as nothing was edited the operator's own files are run.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from provisioner.engine import extravars
from provisioner.engine.project import Project
from secbeat.auth import write_secret
from secbeat.errors import ConfigError
from secbeat.ids import new_op_id
from secbeat.settings import BlueprintSettings
from secbeat.wire.webhook import Action


@dataclass(frozen=True)
class Blueprint:
    """One revision of a blueprint, ready to run."""

    name: str
    digest: str
    settings: BlueprintSettings
    project: Project

    def playbook(self, action: Action) -> Path:
        """The playbook of an action."""
        chosen = self.settings.create_playbook if action == "create" else self.settings.destroy_playbook
        return self.project.playbook(chosen)

    def inventory(self) -> Path:
        """The inventory's file or directory."""
        return self.project.inventory(self.settings.inventory)

    def timeout(self, action: Action) -> float:
        """Seconds that one run may take."""
        return self.settings.create_timeout_seconds if action == "create" else self.settings.destroy_timeout_seconds


class Blueprints:
    """The registry."""

    def __init__(self, settings: Mapping[str, BlueprintSettings], project: Project, revisions: Path) -> None:
        self._settings, self._project, self._revisions = dict(settings), project, revisions

    def names(self) -> list[str]:
        """All blueprints, sorted."""
        return sorted(self._settings)

    def check(self) -> None:
        """Look at every blueprint, so that a broken one stops the start and not a scale-up at night.

        Raises:
            ConfigError: BLUEPRINT_INVALID, PLAYBOOK_NOT_FOUND.
        """
        for name, settings in self._settings.items():
            if settings.engine != "ansible":
                raise ConfigError("BLUEPRINT_INVALID", why=f"blueprints.{name}.engine: {settings.engine} is not built")
            for variable in settings.variables:
                if reason := extravars.check_name(variable):
                    raise ConfigError("BLUEPRINT_INVALID", why=f"blueprints.{name}.variables.{variable[:64]} {reason}")
            current = self.current(name)
            current.playbook("create")
            current.playbook("destroy")

    def __contains__(self, name: str) -> bool:
        return name in self._settings

    def replace(self, settings: Mapping[str, BlueprintSettings]) -> None:
        """Take over the settings of a reload; which blueprints there are does not change."""
        self._settings = {name: settings[name] for name in self._settings}

    def settings(self, name: str) -> BlueprintSettings:
        """The settings of a blueprint; KeyError if there is none of this name."""
        return self._settings[name]

    def current(self, name: str) -> Blueprint:
        """The blueprint as its files are now.

        Raises:
            ConfigError: unknown (BLUEPRINT_UNKNOWN), or its files are gone (PLAYBOOK_NOT_FOUND).
        """
        settings = self._settings.get(name)
        if settings is None:
            known = ", ".join(self.names())
            raise ConfigError("BLUEPRINT_UNKNOWN", why=f"there is no blueprint {name[:64]!r}; there are: {known}")
        # Limits and timeouts may change without making another kind of machine.
        shape = settings.model_dump(
            mode="json", include={"engine", "target", "create_playbook", "destroy_playbook", "inventory", "variables"}
        )
        text = json.dumps(shape, sort_keys=True) + self._project.digest(settings.inventory)
        return Blueprint(name, hashlib.sha256(text.encode()).hexdigest()[:32], settings, self._project)

    def of_machine(self, name: str, digest: str) -> Blueprint:
        """The revision that made a machine; the current one where that is the same or was not kept."""
        kept = self._revisions / digest
        if name in self._settings:
            current = self.current(name)
            if current.digest == digest or not kept.is_dir():
                return current
        try:
            settings = BlueprintSettings.model_validate_json((kept / "blueprint.json").read_text())
        except (OSError, ValidationError) as error:
            raise ConfigError("BLUEPRINT_UNKNOWN", why=f"revision {digest} of {name!r} is not kept: {error}") from None
        return Blueprint(name, digest, settings, Project(kept))

    def kept(self, blueprint: Blueprint) -> bool:
        """Whether a revision's files are copied already."""
        return (
            blueprint.project.root == self._revisions / blueprint.digest
            or (self._revisions / blueprint.digest).is_dir()
        )

    def keep(self, blueprint: Blueprint) -> None:
        """Copy a revision's files, unless that is done already.

        Raises:
            OSError: the copy cannot be written.
        """
        kept = self._revisions / blueprint.digest
        if self.kept(blueprint):
            return
        fresh = self._revisions / f".{blueprint.digest}.{new_op_id()}"
        try:
            for path in blueprint.project.files(blueprint.settings.inventory):
                copy = fresh / path.relative_to(blueprint.project.root)
                copy.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                shutil.copy2(path, copy)
            write_secret(fresh / "blueprint.json", blueprint.settings.model_dump_json())
            fresh.rename(kept)
        except OSError:
            if not kept.is_dir():  # else another job has kept it meanwhile
                raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)

    def forget(self, still_used: set[str]) -> None:
        """Remove the copies of revisions that no machine needs any more."""
        used = still_used | {self.current(name).digest for name in self._settings}
        with suppress(FileNotFoundError):
            for kept in self._revisions.iterdir():
                if kept.name not in used:
                    shutil.rmtree(kept, ignore_errors=True)
