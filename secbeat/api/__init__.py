"""The HTTP surface that every service shares: routes as data, authentication, errors as problem+json, OpenAPI."""

from __future__ import annotations

from secbeat.api.app import build_app
from secbeat.api.requests import fail, principal, read_body, reply
from secbeat.api.routes import Route, health_routes
from secbeat.api.serving import Listener, listen, metrics_app

__all__ = [
    "Listener",
    "Route",
    "build_app",
    "fail",
    "health_routes",
    "listen",
    "metrics_app",
    "principal",
    "read_body",
    "reply",
]
