"""Jobs, their logs, machines and blueprints, and the one thing that people may ask: to cancel a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, get_args

from aiohttp import web
from pydantic import ConfigDict

from provisioner.engine.blueprints import Blueprints
from provisioner.inventory import Lister
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.jobs.worker import Worker
from secbeat import ids
from secbeat.api import Parameter, Route, asked, changed, choices, fail, flag, health_routes, integer, reply
from secbeat.api.parameters import POOL, SINCE
from secbeat.api.routes import Answer, Handler
from secbeat.store import Unavailable
from secbeat.wire.base import Wire
from secbeat.wire.jobs import FINISHED, JobRecord, JobState, MachineList
from secbeat.wire.webhook import Action

_MOST = 10_000
_STORED: Mapping[int, str | Answer] = {503: "The store does not answer"}


class Jobs(Wire):
    """``GET /jobs``. ``next``: pass it as ``after`` to get what follows; null at the end."""

    items: list[JobRecord]
    next: str | None = None


class Blueprint(Wire):
    """One entry of ``GET /blueprints``: its settings, and of its variables only the names."""

    model_config = ConfigDict(extra="allow")

    name: str
    digest: str
    engine: str
    target: str
    variables: list[str]


class BlueprintList(Wire):
    """``GET /blueprints``."""

    items: list[Blueprint]
    next: str | None = None


class Reading:
    """The handlers."""

    def __init__(self, *, store: JobStore, worker: Worker, hub: LogHub, blueprints: Blueprints, lister: Lister) -> None:
        self._store, self._worker, self._hub = store, worker, hub
        self._blueprints, self._lister = blueprints, lister

    async def jobs(self, request: web.Request) -> web.Response:
        """The newest jobs first, in pages that are continued behind an op_id."""
        with _store_answers():
            stored = await self._store.jobs()
        wanted, after = _wanted(request), asked(request, "after")
        found = [job for job in stored if wanted(job) and (after is None or job.op_id < after)]
        found.sort(key=lambda job: job.op_id, reverse=True)
        limit = asked(request, "newest") or asked(request, "limit")
        following = found[limit - 1].op_id if len(found) > limit else None
        headers = {}
        if following is not None:
            headers["Link"] = f'<{request.rel_url.update_query(after=following)}>; rel="next"'
        return reply(Jobs(items=found[:limit], next=following), headers=headers)

    async def job(self, request: web.Request) -> web.Response:
        """One job."""
        return reply(await self._job(request))

    async def cancel(self, request: web.Request) -> web.Response:
        """Ask for a job to stop: 202 with its record; a job that has ended is 409."""
        job = await self._job(request)
        if job.state in FINISHED:
            fail("JOB_ENDED", 409, f"job {job.op_id} has ended: {job.state}")
        with _store_answers():
            asked = await self._worker.request_cancel(job.op_id)
        now = asked if asked is not None else job
        changed(request, before={"state": job.state}, after={"state": now.state, "cancel_requested": asked is not None})
        return reply(now, status=202)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """The log's bytes from ``?offset=N``; with ``?follow=1`` until the job has ended."""
        job = await self._job(request)
        offset, follow = asked(request, "offset"), asked(request, "follow")
        # A log that grows is worth nothing in a proxy's buffer.
        headers = {"Content-Type": "text/plain; charset=utf-8", "Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)

        async def finished() -> bool:
            try:
                now = await self._store.get(job.op_id)
            except Unavailable:
                return False
            return now is None or now.state in FINISHED

        async for chunk in self._hub.follow(job.op_id, offset, finished=finished, follow=follow):
            await response.write(chunk)
        await response.write_eof()
        return response

    async def machines(self, request: web.Request) -> web.Response:
        """What a target says exists; ``?target=`` (default: that of the only target, else ``local``)."""
        targets = sorted({self._blueprints.settings(name).target for name in self._blueprints.names()})
        target = asked(request, "target") or (targets[0] if len(targets) == 1 else "local")
        if target not in targets:
            fail("NOT_FOUND", 404, f"no blueprint has target {target[:64]!r}; there are: {', '.join(targets)}")
        return reply(await self._lister.listed(target))

    async def blueprints(self, _request: web.Request) -> web.Response:
        """The registry; values of variables are not shown, they may be secrets."""
        return reply({"items": [self._blueprint(name) for name in self._blueprints.names()], "next": None})

    def _blueprint(self, name: str) -> dict[str, Any]:
        current = self._blueprints.current(name)
        shown = current.settings.model_dump(mode="json", exclude={"variables"})
        return {"name": name, "digest": current.digest, **shown, "variables": sorted(current.settings.variables)}

    async def _job(self, request: web.Request) -> JobRecord:
        try:
            op_id = ids.check_op_id(request.match_info["op_id"])
        except ValueError as error:
            fail("NOT_FOUND", 404, str(error))
        with _store_answers():
            found = await self._store.get(op_id)
        if found is None:
            fail("NOT_FOUND", 404, f"there is no job {op_id}")
        return found


class _store_answers:  # noqa: N801 - reads as a statement
    """Turns the store's silence into 503."""

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        if isinstance(error, Unavailable):
            fail("STATE_UNAVAILABLE", 503, f"the store does not answer: {error}", headers={"Retry-After": "5"})


def _wanted(request: web.Request) -> Callable[[JobRecord], bool]:
    pool, node, since = asked(request, "pool"), asked(request, "node"), asked(request, "since")
    unfinished, actions, states = asked(request, "open"), asked(request, "action"), asked(request, "state")

    def wanted(job: JobRecord) -> bool:
        return (
            pool in {None, job.pool}
            and node in {None, job.node_id}
            and not (unfinished and job.state in FINISHED)
            and (actions is None or job.action in actions)
            and (states is None or job.state in states)
            and (since is None or job.created_at >= since)
        )

    return wanted


_FILTERS: Mapping[str, Parameter] = {
    "pool": POOL,
    "node": Parameter("Only this node's", high=36),
    "open": flag("Only unfinished ones"),
    "action": choices("Only these", *get_args(Action)),
    "state": choices("Only in these states", *get_args(JobState)),
    "since": SINCE,
    "limit": integer("At most so many", low=1, high=_MOST, default=200),
    "newest": integer("The same as limit", low=1, high=_MOST),
    "after": Parameter("Continue behind this op_id: `next` of a page", high=26),
}


def _get(path: str, handler: Handler, summary: str, response: Any = None, **further: Any) -> Route:
    """A route that only reads: open to loopback peers, as at the orchestrator."""
    return Route(
        method="GET", path=path, handler=handler, summary=summary, scope="read", loopback_open=True,
        response=response, **further,
    )  # fmt: skip


def routes(reading: Reading, checks: Callable[[], Mapping[str, str | None]], metrics: Handler) -> list[Route]:
    """Everything but the webhook."""
    return [
        _get("/jobs", reading.jobs, "Jobs, the newest first", Jobs, query=_FILTERS, answers=_STORED,
             headers={"Link": 'The next page, rel="next"'}),
        _get("/jobs/{op_id}", reading.job, "One job", JobRecord, answers=_STORED),
        _get("/jobs/{op_id}/log", reading.log, "A job's log", media="text/plain", answers=_STORED,
             query={"offset": integer("Bytes to skip", low=0, high=1 << 50, default=0),
                    "follow": flag("Go on until the job has ended")}),
        Route(method="POST", path="/jobs/{op_id}/cancel", handler=reading.cancel, summary="Stop a job",
              scope="operate", response=JobRecord, status=202, changes=True),
        _get("/machines", reading.machines, "What exists", MachineList,
             query={"target": Parameter("Of this target", high=64)},
             answers={404: "No blueprint has this target", 503: "The target does not answer"}),
        _get("/blueprints", reading.blueprints, "How nodes are made", BlueprintList),
        _get("/metrics", metrics, "Prometheus metrics", media="text/plain"),
        *health_routes(checks),
    ]  # fmt: skip
