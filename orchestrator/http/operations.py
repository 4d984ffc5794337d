"""Operations and the jobs that carry them out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import get_args

from aiohttp import web

from orchestrator.http.context import Context
from orchestrator.http.paging import AFTER, LIMIT, NEXT_LINK, Page, by_id
from secbeat import signing
from secbeat.api import Route, asked, changed, choices, fail, flag, parse_body, principal, read_raw, reply
from secbeat.api.parameters import POOL, SINCE, Parameter
from secbeat.errors import AuthError
from secbeat.wire.jobs import FINISHED, JobRecord, JobState
from secbeat.wire.operations import OperationRecord, OperationState
from secbeat.wire.registration import JoinSecret
from secbeat.wire.webhook import Action

_TOLERANCE_SECONDS = 300.0
_STORED = {503: "The store does not answer"}
_FILTERS: Mapping[str, Parameter] = {
    "pool": POOL,
    "node": Parameter("Only this node's", high=36),
    "action": choices("Only these", *get_args(Action)),
    "open": flag("Only those that have not ended"),
    "since": SINCE,
    "limit": LIMIT,
    "after": AFTER,
}


class Operations:
    """Handlers of ``/api/v1/operations`` and ``/api/v1/jobs``."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._control = context.control

    async def list(self, request: web.Request) -> web.Response:
        found = self._control.operations(asked(request, "pool"), open_only=asked(request, "open"))
        return by_id(request, filter(_wanted(request), found), lambda operation: operation.op_id)

    async def show(self, request: web.Request) -> web.Response:
        return reply(self._control.operation(request.match_info["op_id"]))

    async def join(self, request: web.Request) -> web.Response:
        secret = await self._control.join_secret(request.match_info["op_id"])
        changed(request, after={"node_id": secret.node_id, "expires_at": secret.expires_at.isoformat()})
        return reply(secret)

    async def status(self, request: web.Request) -> web.Response:
        """A receiver that cannot speak NATS tells how its job goes; signed, because it decides about machines."""
        op_id = request.match_info["op_id"]
        raw = await read_raw(request)
        secrets = self._context.webhook_secrets()
        if not secrets:
            raise AuthError("SIGNATURE_INVALID", why="this orchestrator has no webhook secret (webhook_secret_file)")
        now = self._context.clock.now().timestamp()
        signing.verify(secrets, request.headers, raw, now=now, tolerance=_TOLERANCE_SECONDS)
        if request.content_type != "application/json":
            fail("CONTENT_TYPE", 415, f"Content-Type is {request.headers.get('Content-Type', 'absent')!r}")
        record = parse_body(raw, JobRecord)
        if record.op_id != op_id:
            fail("BODY_INVALID", 422, f"op_id: the body is about {record.op_id}, the path about {op_id}", field="op_id")
        await self._control.job_report(op_id, record)
        changed(request, after={"op_id": op_id, "state": record.state})
        return web.Response(status=204)

    async def jobs(self, request: web.Request) -> web.Response:
        found: Iterable[JobRecord] = await self._control.jobs()
        if asked(request, "open"):
            found = (job for job in found if job.state not in FINISHED)
        return by_id(request, filter(_wanted(request), found), lambda job: job.op_id)

    async def job(self, request: web.Request) -> web.Response:
        return reply(await self._control.job(request.match_info["op_id"]))

    async def cancel(self, request: web.Request) -> web.Response:
        op_id = request.match_info["op_id"]
        before = await self._control.job(op_id)
        after = await self._control.cancel_job(op_id, by=principal(request).name)
        changed(request, before={"state": before.state}, after={"state": after.state, "op_id": op_id})
        return reply(after)


def _wanted(request: web.Request) -> Callable[[OperationRecord | JobRecord], bool]:
    """The filters that operations and jobs have in common."""
    pool, node, since = asked(request, "pool"), asked(request, "node"), asked(request, "since")
    actions, states = asked(request, "action"), asked(request, "state")

    def wanted(one: OperationRecord | JobRecord) -> bool:
        return (
            pool in {None, one.pool}
            and node in {None, one.node_id}
            and (actions is None or one.action in actions)
            and (states is None or one.state in states)
            and (since is None or one.created_at >= since)
        )

    return wanted


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    operations = Operations(context)
    one, job = "/api/v1/operations/{op_id}", "/api/v1/jobs/{op_id}"
    return [
        Route(method="GET", path="/api/v1/operations", handler=operations.list, scope="read",
              response=Page[OperationRecord], summary="Operations, newest first", headers=NEXT_LINK,
              query={**_FILTERS, "state": choices("Only in these states", *get_args(OperationState))}),
        Route(method="GET", path=one, handler=operations.show, scope="read", response=OperationRecord,
              summary="One operation"),
        Route(method="POST", path=f"{one}/join", handler=operations.join, scope="service", changes=True,
              response=JoinSecret, summary="A fresh one-use join secret for the machine of a create operation"),
        Route(method="POST", path=f"{one}/status", handler=operations.status, scope=None, changes=True, status=204,
              signed=True, request=JobRecord, answers={401: "No valid signature"},
              summary="Report a job without NATS; signed with the webhook secret"),
        Route(method="GET", path="/api/v1/jobs", handler=operations.jobs, scope="read", response=Page[JobRecord],
              summary="Jobs of the provisioners, newest first", headers=NEXT_LINK, answers=_STORED,
              query={**_FILTERS, "state": choices("Only in these states", *get_args(JobState))}),
        Route(method="GET", path=job, handler=operations.job, scope="read", response=JobRecord, summary="One job",
              answers=_STORED),
        Route(method="POST", path=f"{job}/cancel", handler=operations.cancel, scope="operate", changes=True,
              response=JobRecord, summary="Ask the provisioner that runs it to end it"),
    ]  # fmt: skip
