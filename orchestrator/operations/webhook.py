"""The webhook: one signed attempt to reach the receiver, and what its answer means."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

import aiohttp
import msgspec
from pydantic import ValidationError

from orchestrator.operations.backoff import retry_after
from secbeat import __version__, catalogue, signing
from secbeat.clock import Clock
from secbeat.wire.webhook import WebhookAnswer

MAX_ANSWER = 64 * 1024
_PASSING = frozenset({408, 425, 429})

Outcome = Literal["tracked", "untracked", "retry", "refused", "superseded"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """What one attempt came to.

    ``tracked``: the receiver knows op_ids, its job record tells the rest. ``untracked``: a bare 2xx, the request must
    never be sent again. ``retry``: not now. ``refused``: never. ``superseded``: 409, the receiver has seen a higher
    epoch. ``arrived``: the receiver may have seen the request, whatever became of the answer.
    """

    outcome: Outcome
    arrived: bool
    status: int | None = None
    code: str = ""
    sentence: str = ""
    retry_after: float | None = None
    seen_epoch: int | None = None


class Webhooks(Protocol):
    """Whoever can be asked to create and destroy machines."""

    async def send(self, url: str, *, op_id: str, body: bytes, traceparent: str | None = None) -> Delivery:
        """One attempt. Never raises but for cancellation: every failure is a Delivery."""
        ...


class _Superseded(msgspec.Struct):
    epoch: Annotated[int, msgspec.Meta(ge=0, le=2**62)] | None = None


class _Problem(msgspec.Struct):
    code: str
    detail: str = ""


class WebhookClient:
    """Webhooks over HTTP.

    Redirects are not followed and the environment's proxies are not used: the configured URL is the only address that
    a request may reach. The answer is data; only its status and our own answer's shape are looked at.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        timeout_seconds: Callable[[], float],
        secret: str | None = None,
        bearer: str | None = None,
    ) -> None:
        self._clock = clock
        self._timeout = timeout_seconds
        self._secret = secret
        self._bearer = bearer
        self._session: aiohttp.ClientSession | None = None

    async def send(self, url: str, *, op_id: str, body: bytes, traceparent: str | None = None) -> Delivery:
        headers = self._headers(op_id, body)
        if traceparent is not None:
            headers["traceparent"] = traceparent
        try:
            async with (
                asyncio.timeout(self._timeout()),
                self._open().post(url, data=body, headers=headers, allow_redirects=False) as response,
            ):
                answer = await _read(response)
                status, answered = response.status, response.headers
        except TimeoutError:
            return _failed("WEBHOOK_TIMEOUT", f"no answer within {self._timeout():g} s", arrived=True)
        except (aiohttp.ClientConnectorError, aiohttp.ServerTimeoutError) as error:
            return _failed("WEBHOOK_UNREACHABLE", f"{_plain(error)}", arrived=False)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError) as error:
            return Delivery(
                outcome="refused", arrived=False, code="WEBHOOK_REFUSED", sentence=f"the URL is not usable: {error}"
            )
        except (aiohttp.ClientError, OSError) as error:
            return _failed("WEBHOOK_UNREACHABLE", f"the connection broke: {_plain(error)}", arrived=True)
        return interpret(status, answered, answer, op_id=op_id, clock=self._clock)

    async def close(self) -> None:
        """Close the connections."""
        if self._session is not None:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            # Many operations may wait on one slow receiver; none waits for another's connection.
            connector = aiohttp.TCPConnector(limit=0, keepalive_timeout=30)
            self._session = aiohttp.ClientSession(connector=connector, trust_env=False, auto_decompress=False)
        return self._session

    def _headers(self, op_id: str, body: bytes) -> dict[str, str]:
        headers = {"Content-Type": "application/json", "User-Agent": f"secbeat/{__version__}"}
        if self._secret is not None:
            stamp = int(self._clock.now().timestamp())
            headers |= signing.headers(self._secret, msg_id=op_id, timestamp=stamp, body=body)
        else:
            # Not webhook-id: a receiver takes any webhook-* header for a claim to be signed.
            headers["Idempotency-Key"] = op_id
        if self._bearer is not None:
            headers["Authorization"] = f"Bearer {self._bearer}"
        return headers


async def _read(response: aiohttp.ClientResponse) -> bytes:
    """At most MAX_ANSWER bytes; the rest is not read, the connection is given up."""
    chunks = bytearray()
    async for chunk in response.content.iter_any():
        chunks += chunk
        if len(chunks) > MAX_ANSWER:
            response.close()
            return b""
    return bytes(chunks)


def interpret(status: int, headers: Mapping[str, str], answer: bytes, *, op_id: str, clock: Clock) -> Delivery:
    """What an answer means (DESIGN: 202 accepted, 200 known, 409 lower epoch, 422, 429/503 with Retry-After)."""
    if 200 <= status < 300:
        known = _ours(answer, op_id)
        return Delivery(outcome="tracked" if known else "untracked", arrived=True, status=status)
    if status == 409:
        return Delivery(
            outcome="superseded",
            arrived=True,
            status=status,
            code="EPOCH_SUPERSEDED",
            sentence=f"the receiver refused epoch or operation with 409: {_excerpt(answer)}",
            seen_epoch=_seen_epoch(answer),
        )
    if status >= 500 or status in _PASSING:
        wait = retry_after(headers.get("Retry-After"), now=clock.now())
        code, sentence = _reason("WEBHOOK_BUSY", status, answer)
        return _failed(code, sentence, arrived=True, status=status, wait=wait)
    code, sentence = _reason("WEBHOOK_REFUSED", status, answer)
    return Delivery(outcome="refused", arrived=True, status=status, code=code, sentence=sentence)


def _reason(code: str, status: int, answer: bytes) -> tuple[str, str]:
    """Code and sentence of a refusal: the receiver's own, if it is one of ours and names a code of the catalogue."""
    try:
        problem = msgspec.json.decode(answer, type=_Problem)
    except (msgspec.DecodeError, UnicodeDecodeError):
        problem = None
    if problem is not None and problem.code in catalogue.ALL:
        return problem.code, _excerpt(problem.detail.encode()) + f" (the receiver answered {status})"
    return code, f"the receiver answered {status}: {_excerpt(answer)}"


def _ours(answer: bytes, op_id: str) -> bool:
    try:
        return WebhookAnswer.model_validate_json(answer).op_id == op_id
    except ValidationError:
        return False


def _seen_epoch(answer: bytes) -> int | None:
    """The higher epoch, where the refusal names it."""
    try:
        return msgspec.json.decode(answer, type=_Superseded).epoch
    except (msgspec.DecodeError, UnicodeDecodeError):
        return None


def _failed(
    code: str, sentence: str, *, arrived: bool, status: int | None = None, wait: float | None = None
) -> Delivery:
    return Delivery(outcome="retry", arrived=arrived, status=status, code=code, sentence=sentence, retry_after=wait)


def _excerpt(answer: bytes) -> str:
    """A line of the answer for the operator's eyes: printable, short."""
    text = answer[:300].decode(errors="replace")
    return "".join(char if char.isprintable() else " " for char in text).strip() or "(empty)"


def _plain(error: Any) -> str:
    return (str(error) or type(error).__name__)[:300]
