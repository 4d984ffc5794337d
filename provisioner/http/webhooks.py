"""``POST /provision`` and ``/deprovision``: who sends, is it authentic, then the intake."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Any

from aiohttp import web

from provisioner.metrics import Metrics
from provisioner.webhook.intake import Intake, Taken
from provisioner.webhook.unsigned import UnsignedIntake
from secbeat import signing
from secbeat.api import Route, fail, parse_body, read_raw, reply
from secbeat.clock import Clock
from secbeat.errors import AuthError, SecbeatError
from secbeat.store import Unavailable
from secbeat.wire.webhook import Action, UnsignedBody, WebhookAnswer, WebhookBody

log = logging.getLogger("provisioner.webhook")

MAX_BODY = 64 * 1024
Network = IPv4Network | IPv6Network


class _Claim(UnsignedBody):
    """An unsigned body that may claim more than it can."""

    operation: Any = None


class Webhooks:
    """The two handlers.

    ``secrets`` are those valid now, two during a rotation; none: no signed request can be accepted.
    """

    def __init__(
        self,
        *,
        intake: Intake,
        unsigned: UnsignedIntake,
        secrets: Sequence[str],
        senders: Sequence[Network],
        tolerance_seconds: float,
        clock: Clock,
        metrics: Metrics,
    ) -> None:
        self._intake, self._unsigned = intake, unsigned
        self._secrets, self._senders = tuple(secrets), tuple(senders)
        self.tolerance_seconds, self._clock, self._metrics = tolerance_seconds, clock, metrics

    async def provision(self, request: web.Request) -> web.Response:
        """A create, signed or from a sender that cannot sign."""
        return await self._answer(request, "create")

    async def deprovision(self, request: web.Request) -> web.Response:
        """A destroy; always signed, because no unsigned sender has ever asked for one."""
        return await self._answer(request, "destroy")

    async def _answer(self, request: web.Request, action: Action) -> web.Response:
        status = 500
        try:
            taken = await self._take(request, action)
            status = 202 if taken.status == "accepted" else 200
        except SecbeatError as error:
            status = error.status
            _note(request, error)
            raise
        except Unavailable as error:
            status = 503
            fail("STATE_UNAVAILABLE", 503, f"the store did not confirm: {error}", headers={"Retry-After": "5"})
        finally:
            self._metrics.webhook(action, status)
        job = taken.job
        answer = WebhookAnswer(
            status=taken.status,
            op_id=job.op_id,
            node_id=job.node_id,
            job=job.plain() if taken.status == "known" else None,
        )
        return reply(answer, status=status)

    async def _take(self, request: web.Request, action: Action) -> Taken:
        if (request.content_length or 0) > MAX_BODY:
            fail("BODY_TOO_LARGE", 413, f"a webhook has at most {MAX_BODY} bytes")
        if request.content_type != "application/json":
            fail("CONTENT_TYPE", 415, f"Content-Type is {request.headers.get('Content-Type', 'absent')!r}")
        raw = await read_raw(request)
        if signing.is_signed(request.headers):
            msg_id = self._verified(request, raw)
            return await self._intake.operation(parse_body(raw, WebhookBody), webhook_id=msg_id, action=action)
        self._check_unsigned(request, action)
        body = parse_body(raw, _Claim)
        if body.operation is not None:
            fail("SIGNATURE_MISSING", 401, "a request with an operation must be signed")
        return await self._unsigned.request(body, raw)

    def _verified(self, request: web.Request, raw: bytes) -> str:
        if not self._secrets:
            raise AuthError("SIGNATURE_INVALID", why="this service has no webhook secret, so no signature can be valid")
        now = self._clock.now().timestamp()
        return signing.verify(self._secrets, request.headers, raw, now=now, tolerance=self.tolerance_seconds)

    def _check_unsigned(self, request: web.Request, action: Action) -> None:
        if action == "destroy":
            fail("SIGNATURE_MISSING", 401, "a teardown must be signed")
        try:
            peer = ip_address(request.remote or "")
        except ValueError:
            peer = None
        if peer is None or not any(peer in network for network in self._senders):
            fail("SIGNATURE_MISSING", 401, f"unsigned requests are not accepted from {request.remote}")


_ANSWERS = {
    200: "Known already: the stored result",
    401: "No valid signature",
    409: "Its epoch is older than one that was seen, or the op_id belongs to another body",
    429: "A limit of this service: try again later",
    503: "The store does not answer, or the breaker is open",
}


def _note(request: web.Request, error: SecbeatError) -> None:
    log.warning(
        "%s from %s: %s (%s)", request.path, request.remote, error.why, error.code,
        extra={"action": "webhook_refused", "code": error.code, "status": error.status},
    )  # fmt: skip


def routes(webhooks: Webhooks) -> list[Route]:
    """The two routes. Their authentication is the signature, not a bearer token."""
    return [
        Route(method="POST", path="/provision", handler=webhooks.provision, scope=None, signed=True,
              request=WebhookBody | UnsignedBody, response=WebhookAnswer, status=202, answers=_ANSWERS,
              summary="Create a node; unsigned only from unsigned_senders"),
        Route(method="POST", path="/deprovision", handler=webhooks.deprovision, scope=None, signed=True,
              request=WebhookBody, response=WebhookAnswer, status=202, answers=_ANSWERS, summary="Destroy a node"),
    ]  # fmt: skip
