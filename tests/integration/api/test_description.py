"""What the OpenAPI documents say is what the live services do: every operation is driven through real HTTP."""

from __future__ import annotations

import copy
import itertools
from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed, settings
from openapi_spec_validator import OpenAPIV31SpecValidator
from schemathesis.checks import CHECKS, load_all_checks

EXAMPLES = 50
SERVICES = ("orchestrator", "provisioner")
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
# Retiring would take away the nodes that the other operations need.
NEVER = {("POST", "/api/v1/pools/{name}/retire")}


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
    headers = {"Authorization": f"Bearer {site.tokens['admin']}"}

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


@pytest.mark.parametrize("service", SERVICES)
def test_the_document_is_valid_and_names_every_status_with_its_meaning(site, service):
    doc = document(site, service)
    OpenAPIV31SpecValidator(doc).validate()
    for path, methods in doc["paths"].items():
        for method, operation in methods.items():
            where = f"{method} {path}"
            assert "default" not in operation["responses"], where
            assert all(answer["description"] for answer in operation["responses"].values()), where
            assert all("schema" in parameter for parameter in operation.get("parameters", ())), where


@pytest.mark.parametrize("service", SERVICES)
def test_no_operation_answers_what_its_document_does_not_have(site, service):
    doc = document(site, service)
    seen = drive(site, service, doc)
    # The cases are no empty promise: whatever takes a parameter or a body was refused, and most things succeeded.
    succeeded = [name for name, statuses in seen.items() if any(status < 300 for status in statuses)]
    assert len(succeeded) >= 0.7 * len(seen), sorted(set(seen) - set(succeeded))
    for (method, path), statuses in seen.items():
        operation = doc["paths"][path][method.lower()]
        if "requestBody" in operation or "{" in path:
            assert any(400 <= status < 500 for status in statuses), (method, path)


def test_an_answer_that_the_document_does_not_have_is_found(site):
    doc = document(site, "orchestrator")
    planted = copy.deepcopy(doc)
    del planted["paths"]["/api/v1/operations/{op_id}"]["get"]["responses"]["404"]
    drive(site, "orchestrator", doc, only="/api/v1/operations/{op_id}")
    with pytest.raises(AssertionError, match=r"Undocumented status code\s+Received: 404"):
        drive(site, "orchestrator", planted, only="/api/v1/operations/{op_id}")


def test_a_body_that_is_not_of_the_documented_shape_is_found(site):
    doc = document(site, "orchestrator")
    doc["components"]["schemas"]["PoolView"]["properties"]["capacity"] = {"type": "string"}
    with pytest.raises(AssertionError, match=r"capacity|is not of type"):
        drive(site, "orchestrator", doc, only="/api/v1/pools/{name}")
