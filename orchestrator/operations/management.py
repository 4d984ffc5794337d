"""Calls on a node: its management port, and the NATS commands of the same names where that port is out of reach."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import aiohttp
import msgspec

from orchestrator.operations.addresses import Address, Networks, resolve, url_host
from secbeat import subjects
from secbeat.errors import RefusedError
from secbeat.store import Messaging, Unavailable
from secbeat.wire.base import Wire
from secbeat.wire.control import ResumeRequest, TerminateRequest

_MAX_ANSWER = 64 * 1024
_TIMEOUT = 5.0
_PROBE_TIMEOUT = 2.0


@dataclass(frozen=True, slots=True)
class Target:
    """A node to call: where the provisioner says that it is. ``management_port`` 0: that port is disabled."""

    node_id: str
    host: str | None
    management_port: int
    proxy_port: int
    token: str | None


@dataclass(frozen=True, slots=True)
class Reply:
    """``accepted``: the node does it. ``refused``: it answered and will not. ``unreachable``: nobody answered."""

    outcome: Literal["accepted", "refused", "unreachable"]
    sentence: str = ""
    grace_seconds: float | None = None


class Nodes(Protocol):
    """Whatever can talk to nodes. No method raises but for cancellation."""

    async def terminate(self, target: Target, request: TerminateRequest) -> Reply: ...

    async def resume(self, target: Target, request: ResumeRequest) -> Reply: ...

    async def answers(self, target: Target) -> bool:
        """Whether the node itself is alive: its management port (or its proxy, if that is disabled) answers."""
        ...

    async def listens(self, target: Target) -> bool:
        """Whether anything accepts connections on the same port."""
        ...


class NodeClient:
    """Nodes over HTTP and NATS. Only addresses within ``networks`` are dialled; redirects and proxies are not used."""

    def __init__(self, *, networks: Callable[[], Networks], messaging: Messaging) -> None:
        self._networks = networks
        self._messaging = messaging
        self._session: aiohttp.ClientSession | None = None

    async def terminate(self, target: Target, request: TerminateRequest) -> Reply:
        return await self._call(target, "terminate", request)

    async def resume(self, target: Target, request: ResumeRequest) -> Reply:
        return await self._call(target, "resume", request)

    async def answers(self, target: Target) -> bool:
        if target.management_port == 0:
            return await self.listens(target)
        address = await self._address(target)
        if address is None:
            return False
        url = f"http://{url_host(address)}:{target.management_port}/health"
        try:
            async with (
                asyncio.timeout(_PROBE_TIMEOUT),
                self._open().get(url, headers=_headers(target), allow_redirects=False),
            ):
                return True
        except (aiohttp.ClientError, OSError, TimeoutError):
            return False

    async def listens(self, target: Target) -> bool:
        address = await self._address(target)
        if address is None:
            return False
        try:
            async with asyncio.timeout(_PROBE_TIMEOUT):
                _, writer = await asyncio.open_connection(str(address), target.management_port or target.proxy_port)
        except (OSError, TimeoutError):
            return False
        writer.close()
        with contextlib.suppress(OSError, TimeoutError):
            async with asyncio.timeout(_PROBE_TIMEOUT):
                await writer.wait_closed()
        return True

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    async def _call(self, target: Target, verb: str, request: Wire) -> Reply:
        """By HTTP; by NATS where the port is disabled or nobody answers on it."""
        body = request.model_dump_json(exclude_none=True).encode()
        reply = Reply("unreachable", "its management port is disabled")
        if target.management_port:
            reply = await self._post(target, verb, body)
        if reply.outcome != "unreachable":
            return reply
        by_nats = await self._command(target, verb, body)
        return by_nats if by_nats.outcome != "unreachable" else reply

    async def _post(self, target: Target, verb: str, body: bytes) -> Reply:
        try:
            address = await resolve(target.host or "", self._networks())
        except RefusedError as error:
            return Reply("unreachable", f"not dialled: {error.why}")
        url = f"http://{url_host(address)}:{target.management_port}/control/{verb}"
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                self._open().post(
                    url,
                    data=body,
                    headers={**_headers(target), "Content-Type": "application/json"},
                    allow_redirects=False,
                ) as response,
            ):
                answer = await response.content.read(_MAX_ANSWER)
                status = response.status
        except TimeoutError:
            return Reply("unreachable", f"{url}: no answer within {_TIMEOUT:g} s")
        except (aiohttp.ClientError, OSError) as error:
            return Reply("unreachable", f"{url}: {str(error)[:200]}")
        if 200 <= status < 300:
            return Reply("accepted", grace_seconds=_grace(answer))
        return Reply("refused", f"{url} answered {status}")

    async def _command(self, target: Target, verb: str, body: bytes) -> Reply:
        try:
            answer = await self._messaging.request(subjects.command(target.node_id, verb), body, _TIMEOUT)
        except Unavailable as error:
            return Reply("unreachable", f"NATS command {verb}: {error}")
        fields = _fields(answer)
        if fields.get("success") is True:
            return Reply("accepted", grace_seconds=_grace(answer))
        return Reply("refused", f"NATS command {verb}: {str(fields.get('message', 'refused'))[:200]}")

    async def _address(self, target: Target) -> Address | None:
        try:
            return await resolve(target.host or "", self._networks())
        except RefusedError:
            return None

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            connector = aiohttp.TCPConnector(limit=100, force_close=True)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False)
        return self._session


def _headers(target: Target) -> dict[str, str]:
    return {"Authorization": f"Bearer {target.token}"} if target.token else {}


def _fields(answer: bytes) -> dict[str, Any]:
    try:
        decoded = msgspec.json.decode(answer)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return {}
    return decoded if isinstance(decoded, dict) else {}


def _grace(answer: bytes) -> float | None:
    value = _fields(answer).get("grace_period_seconds")
    return float(value) if isinstance(value, int | float) and 0 <= value <= 86400 else None
