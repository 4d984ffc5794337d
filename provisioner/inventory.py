"""What the targets themselves say exists (``GET /machines``, and the proof of a destroy)."""

from __future__ import annotations

import asyncio
import importlib
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from secbeat.clock import Clock
from secbeat.wire.jobs import ListedMachine, MachineList

log = logging.getLogger("provisioner")


class Lister(Protocol):
    """Asks one target what exists."""

    async def listed(self, target: str) -> MachineList:
        """Never raises: a list that could not be made is incomplete, and proves nothing."""
        ...


class TargetLister:
    """Lists ``local`` machines; the list of any other target is incomplete until that target is built."""

    def __init__(self, machines_dir: Path, clock: Clock) -> None:
        self._machines_dir, self._clock = machines_dir, clock

    async def listed(self, target: str) -> MachineList:
        machines: Sequence[ListedMachine] = []
        complete = False
        if target == "local":
            try:
                machines = await asyncio.to_thread(self._local)
                complete = True
            except Exception:
                # Whatever is wrong there, the answer here is the same: we do not know.
                log.exception("The local machines cannot be listed", extra={"action": "list_failed"})
        return MachineList(target=target, listed_at=self._clock.now(), complete=complete, machines=list(machines))

    def _local(self) -> list[ListedMachine]:
        # Imported when needed: the target is a part of its own, with its own dependencies.
        module = importlib.import_module("provisioner.local")
        list_machines: Callable[[Path], list[ListedMachine]] = module.list_machines
        return list_machines(self._machines_dir)
