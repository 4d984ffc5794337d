"""What the OpenAPI documents say is what the live services do."""

from __future__ import annotations

import copy

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.integration.api.driving import document, drive

SERVICES = ("orchestrator", "provisioner")


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
