"""Registering over HTTP: in the original's form, with a join secret, or again with the management token."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass
from urllib.parse import urlsplit

import aiohttp
import msgspec
from pydantic import ValidationError

from secbeat.api.guarding import is_loopback
from secbeat.wire.heartbeat import LegacyHeartbeat
from secbeat.wire.registration import Join, NodeConfig, RegisterRequest, RegisterResponse
from secbeat.wire.rules import SnapshotFrame, decode_snapshot

log = logging.getLogger("agent")

_TIMEOUT = 10.0
_MAX_ANSWER = 64 * 1024
_MAX_SNAPSHOT = 64 * 1024 * 1024
CONFIG = NodeConfig(node_type="mitigation-node", region=None, tags=["tls-termination", "l7-proxy"])


class Refused(Exception):
    """The orchestrator understood and said no: trying the same again does not help."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(f"{status}: {sentence}")
        self.status = status


class Unreachable(Exception):
    """No usable answer; it may come later."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A registration's answer, and the interval in seconds that it asks for."""

    response: RegisterResponse

    @property
    def heartbeat_seconds(self) -> float:
        """The exact interval where the orchestrator gives one, else the original's whole seconds."""
        return self.response.heartbeat_interval_seconds or float(self.response.heartbeat_interval)


class Orchestrator:
    """The orchestrator as a node sees it. Redirects and proxies of the environment are not followed.

    Args:
        server_url: where it is.
        public_ip: address told to it.
        listens_on: the address that the management API listens on. The orchestrator dials where a registration came
            from, so among several nodes of one host each must call from its own loopback address.
    """

    def __init__(self, server_url: str, *, public_ip: str, listens_on: str = "127.0.0.1") -> None:
        self.url = server_url.rstrip("/")
        self._public_ip = public_ip
        self._listens_on = listens_on
        self._session: aiohttp.ClientSession | None = None

    async def register(self, join: Join | None, *, token: str | None = None) -> Answer:
        """Register.

        Args:
            join: our part; None for the original's form.
            token: the management token, for a join without a secret.

        Raises:
            Refused: the secret, the token or the request is not accepted.
            Unreachable: no answer, an error of the server's own, or an answer that is no registration.
        """
        request = RegisterRequest.model_validate({"public_ip": self._public_ip, "config": CONFIG, "join": join})
        body = request.model_dump_json(exclude_none=True).encode()
        status, text = await self._send("POST", "/api/v1/nodes/register", body, token=token)
        if not 200 <= status < 300:
            self._raise_for(status, text)
        try:
            return Answer(RegisterResponse.decode(text))
        except ValidationError as error:
            first = error.errors(include_input=False, include_url=False)[0]
            raise Unreachable(f"{self.url}: not a registration: {first['loc']}: {first['msg']}") from None

    async def heartbeat(self, heartbeat: LegacyHeartbeat) -> bool:
        """Send a heartbeat in the original's form; False if the node is not known (any more).

        Raises:
            Unreachable: no answer, or another one than 2xx and 404.
        """
        status, text = await self._send("POST", "/api/v1/nodes/heartbeat", heartbeat.encode())
        if status == 404:
            return False
        if not 200 <= status < 300:
            raise Unreachable(f"{self.url}: heartbeat answered {status}: {text[:200].decode(errors='replace')}")
        return True

    async def rules(self, since: int | None, *, token: str | None) -> SnapshotFrame | None:
        """The blocklist, or what changed since a version; None: an original orchestrator, which has none to give.

        Raises:
            Unreachable: no usable answer.
        """
        query = "" if since is None else f"?since={since}"
        status, text = await self._send("GET", f"/api/v1/rules/snapshot{query}", None, token=token, limit=_MAX_SNAPSHOT)
        if status == 404 and token is None:
            return None
        if status != 200:
            raise Unreachable(f"{self.url}: rules/snapshot answered {status}")
        try:
            return decode_snapshot(text)
        except msgspec.DecodeError as error:
            raise Unreachable(f"{self.url}: rules/snapshot is not a snapshot: {error}") from None

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _raise_for(self, status: int, text: bytes) -> None:
        sentence = text[:300].decode(errors="replace") or "no reason given"
        if status in {408, 425, 429} or not 400 <= status < 500 or status == 404:
            raise Unreachable(f"{self.url}: answered {status}: {sentence}")
        raise Refused(status, sentence)

    async def _send(
        self, method: str, path: str, body: bytes | None, *, token: str | None = None, limit: int = _MAX_ANSWER
    ) -> tuple[int, bytes]:
        if self._session is None:
            connector = aiohttp.TCPConnector(local_addr=source_address(self._listens_on, self.url))
            self._session = aiohttp.ClientSession(
                connector=connector, trust_env=False, cookie_jar=aiohttp.DummyCookieJar()
            )
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        try:
            async with (
                asyncio.timeout(_TIMEOUT),
                self._session.request(
                    method, self.url + path, data=body, headers=headers, allow_redirects=False
                ) as response,
            ):
                content = await response.content.read(limit + 1)
                while len(content) <= limit and (more := await response.content.read(limit + 1 - len(content))):
                    content += more
        except TimeoutError:
            raise Unreachable(f"{self.url}: no answer within {_TIMEOUT:g} s") from None
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise Unreachable(f"{self.url}: {str(error)[:200] or type(error).__name__}") from None
        if len(content) > limit:
            raise Unreachable(f"{self.url}: the answer is over {limit} bytes")
        return response.status, content


def source_address(listens_on: str, url: str) -> tuple[str, int] | None:
    """What to bind a connection to ``url`` to, so that it comes from ``listens_on``; None: leave it to the system.

    Only between loopback addresses: elsewhere the route decides, and a machine has one address of its own.
    """
    host = urlsplit(url).hostname or ""
    return (listens_on, 0) if is_loopback(listens_on) and (host == "localhost" or is_loopback(host)) else None
