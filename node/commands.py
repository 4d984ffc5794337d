"""The verbs of the management API and of the NATS commands: one implementation, two ways in."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

from pydantic import ValidationError

from node.drain import Drain
from node.identity import IdentityStore
from node.membership import Member
from secbeat.errors import ConfigError, RefusedError, SecbeatError
from secbeat.wire.control import ResumeRequest, ResumeResponse, TerminateRequest, TerminateResponse
from secbeat.wire.rules import BlocklistNotice

log = logging.getLogger("commands")


class Commands:
    """What the fleet may ask of this node.

    Args:
        member: this node in the fleet, once it has joined.
        on_blocklist: called with each notice of another version.
    """

    def __init__(
        self,
        drain: Drain,
        store: IdentityStore,
        *,
        boot_id: str,
        member: Callable[[], Member | None],
        on_blocklist: Callable[[BlocklistNotice], None] = lambda _notice: None,
    ) -> None:
        self._drain, self._store, self._boot_id, self._member = drain, store, boot_id, member
        self._on_blocklist = on_blocklist
        self._epoch = 0

    @property
    def epoch(self) -> int:
        """The highest epoch seen."""
        return max(self._epoch, self._store.kept.epoch if self._store.kept else 0)

    def terminate(self, request: TerminateRequest, *, lenient: bool) -> TerminateResponse:
        """Start to drain; repeated, the answer and the deadline stay the same.

        Args:
            lenient: whether the original's three fields are enough for a node that has its own token.

        Raises:
            SecbeatError: TERMINATE_UNGUARDED (422).
            RefusedError: TERMINATE_WRONG_TARGET, TERMINATE_STALE_EPOCH (409).
        """
        self._guard(request, lenient=lenient)
        grace = int(self._drain.begin(reason=request.reason, seconds=float(request.grace_period_seconds)))
        return TerminateResponse(
            success=True,
            message=f"Graceful shutdown initiated with {grace} second grace period",
            grace_period_seconds=grace,
        )

    def resume(self, request: ResumeRequest, *, lenient: bool) -> ResumeResponse:
        """Cancel the drain.

        Raises:
            SecbeatError, RefusedError: as ``terminate``; DRAIN_TOO_LATE once the listener has closed.
        """
        self._guard(request, lenient=lenient)
        was = self._drain.draining
        self._drain.resume(request.reason)
        return ResumeResponse(success=True, message="Drain cancelled" if was else "The node was not draining")

    def _guard(self, request: TerminateRequest | ResumeRequest, *, lenient: bool) -> None:
        member, fields = (
            self._member(),
            {"node_id": request.node_id, "boot_id": request.boot_id, "epoch": request.epoch},
        )
        if self._store.kept is not None and not lenient and None in fields.values():
            missing = ", ".join(name for name, value in fields.items() if value is None)
            raise SecbeatError("TERMINATE_UNGUARDED", why=f"the body lacks {missing}", status=422)
        if request.node_id is not None and (member is None or request.node_id != member.node_id):
            raise RefusedError("TERMINATE_WRONG_TARGET", why=f"this is not node {request.node_id}")
        if request.boot_id is not None and request.boot_id != self._boot_id:
            raise RefusedError("TERMINATE_WRONG_TARGET", why="the node has been started anew since")
        if request.epoch is not None:
            self._check_epoch(request.epoch)

    def _check_epoch(self, epoch: int) -> None:
        if epoch < self.epoch:
            raise RefusedError("TERMINATE_STALE_EPOCH", why=f"epoch {epoch} is below {self.epoch}")
        self._epoch = epoch
        try:
            self._store.saw_epoch(epoch)
        except ConfigError as error:
            # A full disk must not keep a node from leaving.
            log.warning("The epoch is not on disk: %s", error.why, extra={"action": "epoch_not_kept"})

    async def by_nats(self, subject: str, payload: bytes) -> bytes:
        """A command on ``secbeat.cmd.<node_id>.<verb>``; the answer as JSON, with the status that HTTP would have."""
        verb = subject.rpartition(".")[2]
        try:
            status, answer = self._perform(verb, payload)
        except SecbeatError as error:
            status, answer = error.status, {"success": False, "message": error.why, "code": error.code}
        except ValidationError as error:
            first = error.errors(include_url=False, include_input=False)[0]
            where = ".".join(str(part) for part in first["loc"])
            status, answer = 422, {"success": False, "message": f"{where}: {first['msg']}", "code": "BODY_INVALID"}
        return json.dumps({**answer, "status": status}).encode()

    def _perform(self, verb: str, payload: bytes) -> tuple[int, dict[str, Any]]:
        if verb == "terminate":
            return 202, self.terminate(TerminateRequest.decode(payload), lenient=False).plain()
        if verb == "resume":
            return 200, self.resume(ResumeRequest.decode(payload), lenient=False).plain()
        if verb == "blocklist":
            self._on_blocklist(BlocklistNotice.decode(payload))
            return 200, {"success": True, "message": "noted"}
        if verb == "ping":
            return 200, {"success": True, "message": self._drain.phase, "boot_id": self._boot_id}
        return 404, {"success": False, "message": f"no such command: {verb[:32]!r}", "code": "NOT_FOUND"}
