"""Jobs, their logs, machines and blueprints, and the one thing that people may ask: to cancel a job."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from aiohttp import web

from provisioner.engine.blueprints import Blueprints
from provisioner.inventory import Lister
from provisioner.jobs.logfile import LogHub
from provisioner.jobs.store import JobStore
from provisioner.jobs.worker import Worker
from secbeat import ids
from secbeat.api import Route, fail, health_routes, query_flag, query_int, reply
from secbeat.api.routes import Handler
from secbeat.store import Unavailable
from secbeat.wire.jobs import FINISHED, JobRecord, MachineList

_NEWEST = 200


class Reading:
    """The handlers."""

    def __init__(self, *, store: JobStore, worker: Worker, hub: LogHub, blueprints: Blueprints, lister: Lister) -> None:
        self._store, self._worker, self._hub = store, worker, hub
        self._blueprints, self._lister = blueprints, lister

    async def jobs(self, request: web.Request) -> web.Response:
        """The newest jobs first; ``?newest=N``, ``?open=1``, ``?pool=``."""
        newest = query_int(request, "newest", _NEWEST, low=1, high=10_000)
        with _store_answers():
            found = await self._store.jobs()
        if query_flag(request, "open"):
            found = [job for job in found if job.state not in FINISHED]
        if pool := request.query.get("pool"):
            found = [job for job in found if job.pool == pool]
        return reply({"items": [job.plain() for job in found[:newest]], "next": None})

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
        return reply(asked if asked is not None else job, status=202)

    async def log(self, request: web.Request) -> web.StreamResponse:
        """The log's bytes from ``?offset=N``; with ``?follow=1`` until the job has ended."""
        job = await self._job(request)
        offset = query_int(request, "offset", 0, low=0, high=1 << 50)
        follow = query_flag(request, "follow")
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
        target = request.query.get("target") or (targets[0] if len(targets) == 1 else "local")
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


def _get(path: str, handler: Handler, summary: str, response: Any = None, **query: str) -> Route:
    """A route that only reads: open to loopback peers, as at the orchestrator."""
    return Route(
        method="GET", path=path, handler=handler, summary=summary, scope="read", loopback_open=True,
        response=response, query=query,
    )  # fmt: skip


def routes(reading: Reading, checks: Callable[[], Mapping[str, str | None]], metrics: Handler) -> list[Route]:
    """Everything but the webhook."""
    return [
        _get("/jobs", reading.jobs, "Jobs, the newest first", newest="At most so many (200)", open="1: unfinished ones",
             pool="Only of this pool"),
        _get("/jobs/{op_id}", reading.job, "One job", JobRecord),
        _get("/jobs/{op_id}/log", reading.log, "A job's log, plain text", offset="Bytes to skip",
             follow="1: go on until the job has ended"),
        Route(method="POST", path="/jobs/{op_id}/cancel", handler=reading.cancel, summary="Stop a job",
              scope="operate", response=JobRecord, status=202, changes=True),
        _get("/machines", reading.machines, "What exists", MachineList, target="Of this target"),
        _get("/blueprints", reading.blueprints, "How nodes are made"),
        _get("/metrics", metrics, "Prometheus metrics"),
        *health_routes(checks),
    ]  # fmt: skip
