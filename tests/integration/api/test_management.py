"""The management API of a live node: its document is what it does."""

from __future__ import annotations

from openapi_spec_validator import OpenAPIV31SpecValidator

from tests.integration.api.driving import drive
from tests.integration.api.site import NODE_TOKEN


def test_the_nodes_management_answers_nothing_that_its_document_does_not_have(site):
    site.start_node()
    headers = {"Authorization": f"Bearer {NODE_TOKEN}"}
    doc = site.session.get(f"{site.management}/api/openapi.json", headers=headers, timeout=30).json()
    OpenAPIV31SpecValidator(doc).validate()
    seen = drive(site, "management", doc)
    assert 501 in seen["GET", "/status/waf"]
    assert 200 in seen["GET", "/health"]
