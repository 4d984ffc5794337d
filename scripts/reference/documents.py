"""The OpenAPI documents of the services, made from their route tables without starting anything."""

from __future__ import annotations

from typing import Any
from unittest.mock import MagicMock

from node import management
from orchestrator import http as orchestrator
from orchestrator.http.examples import EXAMPLES
from provisioner.http import reading, webhooks
from secbeat.api import health_routes, openapi
from secbeat.api.routes import Route


def documents() -> dict[str, dict[str, Any]]:
    """Service → its document. The handlers behind the routes are never called, so they have no collaborators."""
    nothing: Any = MagicMock()
    parts = ("control", "registry", "rules", "events", "audit", "clock")
    tables: dict[str, list[Route]] = {
        "orchestrator": [*health_routes(dict), *orchestrator.routes(**dict.fromkeys(parts, nothing))],
        "provisioner": [*webhooks.routes(nothing), *reading.routes(nothing, dict, nothing)],
        "node": management._routes(nothing),  # noqa: SLF001 - the node builds its application only around a live node
    }
    return {name: openapi.document(name, routes, EXAMPLES) for name, routes in tables.items()}
