"""The HTTP surface that every service shares: routes as data, authentication, errors as problem+json, OpenAPI."""

from __future__ import annotations

from secbeat.api.app import build_app
from secbeat.api.parameters import Parameter, asked, choices, flag, integer
from secbeat.api.requests import (
    bearer,
    changed,
    fail,
    parse_body,
    principal,
    query_flag,
    query_int,
    read_body,
    read_optional,
    read_raw,
    reply,
)
from secbeat.api.routes import Answer, Route, health_routes
from secbeat.api.serving import Listener, bind, listen, metrics_app

__all__ = [
    "Answer",
    "Listener",
    "Parameter",
    "Route",
    "asked",
    "bearer",
    "bind",
    "build_app",
    "changed",
    "choices",
    "fail",
    "flag",
    "health_routes",
    "integer",
    "listen",
    "metrics_app",
    "parse_body",
    "principal",
    "query_flag",
    "query_int",
    "read_body",
    "read_optional",
    "read_raw",
    "reply",
]
