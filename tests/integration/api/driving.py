"""Drives every operation of a live service from its own OpenAPI document, through real HTTP."""

from __future__ import annotations

import itertools
from typing import Any

import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from schemathesis.checks import CHECKS, load_all_checks

from tests.integration.api.site import NODE_TOKEN

EXAMPLES = 50
# `not_a_server_error` is not among them: 501 and 503 are documented, and every other 5xx is undocumented.
load_all_checks()
CHECKED = CHECKS.get_by_names(
    [
        "status_code_conformance",
        "content_type_conformance",
        "response_schema_conformance",
        "response_headers_conformance",
        "allow_header_conformance",
        "unsupported_method",
    ]
)
STREAMS = {"/api/v1/events": {"once": "1"}, "/jobs/{op_id}/log": {"follow": "0"}}  # or they would go on for ever
# They would take away the nodes that the other operations need.
NEVER = {("POST", "/api/v1/pools/{name}/retire"), ("POST", "/control/terminate")}


def document(site, service: str) -> dict[str, Any]:
    return site.get("/api/openapi.json", base=getattr(site, service)).json()


def drive(site, service: str, doc: dict[str, Any], *, only: str | None = None) -> dict[tuple[str, str], set[int]]:
    """Every operation with generated cases; the statuses that came. Raises what all the operations failed with."""
    schema = schemathesis.openapi.from_dict(doc)
    schema.config.update(base_url=getattr(site, service))
    known, seen, failures = existing(site), {}, []
    for found in schema.get_all_operations():
        operation = found.ok()
        name = (operation.method.upper(), operation.path)
        if name in NEVER or (only is not None and operation.path != only):
            continue
        seen[name] = set()
        try:
            exercise(site, operation, known, seen[name])
        except BaseExceptionGroup as group:
            failures += [f"{name}: {one}" for one in group.exceptions]
    assert not failures, "\n\n".join(failures)
    return seen


def exercise(site, operation: Any, known: dict[str, list[str]], statuses: set[int]) -> None:
    """Generated cases of one operation, half of them about things that exist."""
    turns = itertools.count()
    token = NODE_TOKEN if operation.base_url == site.management else site.tokens["admin"]
    headers = {"Authorization": f"Bearer {token}"}

    @seed(20261125)
    @settings(
        max_examples=EXAMPLES, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy())
    def check(case):
        turn = next(turns)
        if turn % 2:
            for key in case.path_parameters or {}:
                if key in known:
                    case.path_parameters[key] = known[key][turn // 2 % len(known[key])]
        if operation.path in STREAMS:
            case.query = {**(case.query or {}), **STREAMS[operation.path]}
        auth = site.sign if operation.path.endswith("/status") else None
        answer = case.call(session=site.session, headers=headers, auth=auth, timeout=30)
        statuses.add(answer.status_code)
        case.validate_response(answer, checks=CHECKED, headers=headers, transport_kwargs={"session": site.session})

    check()


def existing(site) -> dict[str, list[str]]:
    """Things that are there, by the name of the path's parameter."""
    return {
        "name": ["default"],
        "node_id": [node["node_id"] for node in site.get("/api/v1/nodes?all=1").json()],
        "op_id": [job["op_id"] for job in site.get("/api/v1/jobs").json()["items"]],
        "ip": ["203.0.113.7"],
    }
