"""The blocklist over HTTP: the original's two routes, removal, and the snapshot that nodes follow."""

from __future__ import annotations

import logging

from aiohttp import web

from orchestrator.control import Missing
from orchestrator.http.context import Context
from secbeat.api import Route, asked, changed, integer, principal, read_body, reply
from secbeat.errors import RefusedError
from secbeat.store import Unavailable
from secbeat.wire.rules import BlockAnswer, BlockedInfo, BlockedIps, BlockedStats, BlockRequest, RulesSnapshot

log = logging.getLogger("rules")

_ORIGINAL_OPERATOR = "manual_operator"


class Blocking:
    """Handlers of ``/api/v1/rules``."""

    def __init__(self, context: Context) -> None:
        self._rules, self._following = context.rules, context.following

    async def block(self, request: web.Request) -> web.Response:
        body = await read_body(request, BlockRequest)
        caller = principal(request)
        by = _ORIGINAL_OPERATOR if caller.name == "loopback" else caller.name
        try:
            record, command_id = await self._rules.block(body, by=by)
        except (Unavailable, RefusedError) as error:
            # The original answers 200 with success false; its clients look at the body.
            log.warning("%s was not blocked: %s", body.ip, error, extra={"action": "block_failed"})
            return reply(BlockAnswer(success=False, message=f"Failed to block IP {body.ip}: {error}", command_id=None))
        changed(request, after={"ip": record.ip, "ttl_seconds": record.ttl_seconds, "reason": record.reason})
        return reply(BlockAnswer(success=True, message=f"IP {record.ip} blocked successfully", command_id=command_id))

    async def unblock(self, request: web.Request) -> web.Response:
        ip = request.match_info["ip"]
        command_id = await self._rules.unblock(ip, by=principal(request).name)
        if command_id is None:
            raise Missing("NOT_FOUND", why=f"{ip} is not blocked", fix="GET /api/v1/rules/blocked_ips lists them")
        changed(request, before={"ip": ip})
        return reply(BlockAnswer(success=True, message=f"IP {ip} unblocked", command_id=command_id))

    async def listing(self, _request: web.Request) -> web.Response:
        records = self._rules.listing()
        stats = BlockedStats(total_blocked_ips=len(records), manual_blocks=len(records), auto_blocks=0)
        return reply(
            BlockedIps(
                blocked_ips=[
                    (record.ip, BlockedInfo.model_validate(record.model_dump(include=set(BlockedInfo.model_fields))))
                    for record in records
                ],
                stats=stats,
            )
        )

    async def snapshot(self, request: web.Request) -> web.Response:
        await self._following.admit(request)
        return reply(self._rules.snapshot(asked(request, "since")))


def routes(context: Context) -> list[Route]:
    """The routes of this module."""
    blocking = Blocking(context)
    return [
        Route(method="POST", path="/api/v1/rules/block_ip", handler=blocking.block, scope="operate",
              loopback_open=True, legacy=True, changes=True, request=BlockRequest, response=BlockAnswer,
              summary="Block an address or a network; 200 also on failure, see success"),
        Route(method="DELETE", path="/api/v1/rules/block_ip/{ip:.+}", handler=blocking.unblock, scope="operate",
              changes=True, response=BlockAnswer, summary="Remove a block"),
        Route(method="GET", path="/api/v1/rules/blocked_ips", handler=blocking.listing, scope="read",
              loopback_open=True, legacy=True, response=BlockedIps, summary="What is blocked"),
        Route(method="GET", path="/api/v1/rules/snapshot", handler=blocking.snapshot, scope=None,
              response=RulesSnapshot,
              summary="The blocklist for nodes: loopback, scope read, or a node's own management token",
              answers={401: "No valid token"},
              query={"since": integer("Answer with what changed since this version, if that is still known",
                                      low=0, high=2**53)}),
    ]  # fmt: skip
