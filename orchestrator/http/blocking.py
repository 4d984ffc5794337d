"""The blocklist over HTTP: the original's two routes, removal, and the snapshot that nodes follow.

A hundred thousand entries are some megabytes: both lists are made and sent in parts, so that heartbeats and decisions
get their turn every few milliseconds.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Iterator
from ipaddress import ip_network
from itertools import islice

import msgspec
from aiohttp import web

from orchestrator.control import Missing
from orchestrator.http.context import Context, Network
from orchestrator.http.paging import AFTER, MAX_LIMIT, NEXT_LINK, link
from orchestrator.rules import BlockRecord, canonical
from secbeat.api import Parameter, Route, asked, changed, fail, integer, principal, read_body, reply
from secbeat.clock import wire_time
from secbeat.errors import RefusedError
from secbeat.store import Unavailable
from secbeat.wire.base import VERSION
from secbeat.wire.rules import BlockAnswer, BlockedIps, BlockRequest, RulesSnapshot

log = logging.getLogger("rules")

_ORIGINAL_OPERATOR = "manual_operator"
_AT_ONCE = 500  # entries that are one answer with its length; more are streamed
_PER_CHUNK = 250
_TURN = 0.002  # seconds of work after which everything else gets its turn
_encode = msgspec.json.Encoder(decimal_format="number").encode


class Blocking:
    """Handlers of ``/api/v1/rules``."""

    def __init__(self, context: Context) -> None:
        self._rules, self._following, self._clock = context.rules, context.following, context.clock

    async def block(self, request: web.Request) -> web.Response:
        body = await read_body(request, BlockRequest)
        caller = principal(request)
        by = _ORIGINAL_OPERATOR if caller.name == "loopback" else caller.name
        try:
            record, command_id = await self._rules.block(body, by=by)
        except (Unavailable, RefusedError) as error:
            # The original answers 200 with success false; its clients look at the body.
            log.warning("%s was not blocked: %s", body.ip, error, extra={"action": "block_failed"})
            remedy = f"; {error.fix}" if isinstance(error, RefusedError) else ""
            message = f"Failed to block IP {body.ip}: {error}{remedy}"
            return reply(BlockAnswer(success=False, message=message, command_id=None))
        changed(request, after={"ip": record.ip, "ttl_seconds": record.ttl_seconds, "reason": record.reason})
        return reply(BlockAnswer(success=True, message=f"IP {record.ip} blocked successfully", command_id=command_id))

    async def unblock(self, request: web.Request) -> web.Response:
        ip = request.match_info["ip"]
        command_id = await self._rules.unblock(ip, by=principal(request).name)
        wider = self._rules.covering(ip)
        if command_id is None:
            if wider is not None:
                raise Missing(
                    "NOT_FOUND",
                    why=f"{ip} has no entry of its own; it is blocked by {wider}",
                    fix=f"DELETE /api/v1/rules/block_ip/{wider}",
                )
            raise Missing("NOT_FOUND", why=f"{ip} is not blocked", fix="GET /api/v1/rules/blocked_ips lists them")
        changed(request, before={"ip": ip})
        still = "" if wider is None else f"; {wider} still blocks it"
        return reply(BlockAnswer(success=True, message=f"IP {ip} unblocked{still}", command_id=command_id))

    async def listing(self, request: web.Request) -> web.StreamResponse:
        limit, after, within = asked(request, "limit"), asked(request, "after"), asked(request, "within")
        now = self._clock.now()
        blocklist = await self._rules.reading()
        total = blocklist.count(now)
        rows, following = blocklist.live(now), None
        if (limit, after, within) != (None, None, None):
            chosen = blocklist.page(None if after is None else canonical(after), now)
            if within is not None:
                chosen = filter(_lies_within(within), chosen)
            page = await _taken(chosen, (limit or MAX_LIMIT) + 1)
            following = page[-2].ip if len(page) > (limit or MAX_LIMIT) else None
            rows = iter(page[: limit or MAX_LIMIT])
        tail = f'],"stats":{{"total_blocked_ips":{total},"manual_blocks":{total},"auto_blocks":0}}}}'
        return await _stream(request, b'{"blocked_ips":[', rows, _row, tail.encode(), headers=link(request, following))

    async def snapshot(self, request: web.Request) -> web.StreamResponse:
        await self._following.admit(request)
        since = asked(request, "since")
        if since is not None and (difference := await self._rules.difference(since)) is not None:
            return reply(difference)
        version, records = await self._rules.complete()
        head = f'{{"v":{VERSION},"version":{version},"complete":true,"since":null,"blocked":['
        return await _stream(request, head.encode(), records, _rule, b'],"removed":[]}', headers={})


def _row(record: BlockRecord) -> bytes:
    """One entry as the original lists it, keys in its order."""
    info = {
        "blocked_at": wire_time(record.blocked_at),
        "blocked_by": record.blocked_by,
        "metadata": record.metadata,
        "reason": record.reason,
        "ttl_seconds": record.ttl_seconds,
    }
    return _encode((record.ip, info))


def _rule(record: BlockRecord) -> bytes:
    return f'{{"ip":"{record.ip}","expires_at":"{wire_time(record.expires_at)}"}}'.encode()


def _lies_within(text: str) -> Callable[[BlockRecord], bool]:
    try:
        wanted: Network = ip_network(text, strict=False)
    except ValueError:
        fail("QUERY_INVALID", 422, f"within is {text[:40]!r}; it must be an address or a network", field="within")

    def matches(record: BlockRecord) -> bool:
        found = ip_network(record.ip)
        return found.version == wanted.version and found.overlaps(wanted)

    return matches


async def _taken(records: Iterator[BlockRecord], most: int) -> list[BlockRecord]:
    """The first of them; looking for few among many gives way to others."""
    found: list[BlockRecord] = []
    since = time.perf_counter()
    for record in islice(records, most):
        found.append(record)
        if time.perf_counter() - since > _TURN:
            await asyncio.sleep(0)
            since = time.perf_counter()
    return found


async def _stream(
    request: web.Request,
    head: bytes,
    records: Iterable[BlockRecord],
    encode: Callable[[BlockRecord], bytes],
    tail: bytes,
    *,
    headers: dict[str, str],
) -> web.StreamResponse:
    """A JSON list between ``head`` and ``tail``; a short one in one piece."""
    rest = iter(records)
    begun = b",".join(map(encode, islice(rest, _AT_ONCE)))
    first = next(rest, None)
    if first is None:
        return web.Response(body=head + begun + tail, content_type="application/json", headers=headers)
    response = web.StreamResponse(headers={"Content-Type": "application/json", **headers})
    await response.prepare(request)
    if request.method == "HEAD":
        return response
    try:
        await response.write(head + begun + b"," + encode(first))
        since = time.perf_counter()
        while chunk := b"".join(b"," + encode(record) for record in islice(rest, _PER_CHUNK)):
            await response.write(chunk)
            if time.perf_counter() - since > _TURN:
                await asyncio.sleep(0)
                since = time.perf_counter()
        await response.write_eof(tail)
    except ConnectionError:
        pass  # The client has gone; there is nobody to tell.
    return response


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
              loopback_open=True, legacy=True, response=BlockedIps, headers=NEXT_LINK,
              summary="What is blocked; with limit in pages, by an order of its own",
              answers={503: "Another orchestrator leads, or the store does not answer"},
              query={"limit": integer("At most so many; the Link header names the next page", low=1, high=MAX_LIMIT),
                     "after": AFTER,
                     "within": Parameter("Only entries that overlap this address or network", high=64)}),
        Route(method="GET", path="/api/v1/rules/snapshot", handler=blocking.snapshot, scope=None,
              response=RulesSnapshot,
              summary="The blocklist for nodes: loopback, scope read, or a node's own management token",
              answers={401: "No valid token", 503: "Another orchestrator leads, or the store does not answer"},
              query={"since": integer("Answer with what changed since this version, if that is still known",
                                      low=0, high=2**53)}),
    ]  # fmt: skip
