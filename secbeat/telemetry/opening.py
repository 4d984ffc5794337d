"""Whether this service makes traces, and where they go; nothing is imported for those who want none."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from importlib.util import find_spec

from secbeat.errors import ConfigError
from secbeat.settings import TelemetrySettings
from secbeat.telemetry.tracing import OFF, Tracing

log = logging.getLogger("telemetry")

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")


def open_tracing(service: str, settings: TelemetrySettings, environ: Mapping[str, str] | None = None) -> Tracing:
    """Traces as ``OTEL_*`` variables and ``[telemetry]`` ask for; OFF, and nothing imported, if they do not.

    Raises:
        ConfigError: ``telemetry.otlp_endpoint`` is set and the extra ``telemetry`` is not installed, or the variables
            contradict each other (CONFIG_INVALID).
    """
    given = os.environ if environ is None else environ
    wanted = settings.otlp_endpoint is not None or any(given.get(name) for name in _ENDPOINTS)
    refused = given.get("OTEL_SDK_DISABLED", "").lower() == "true" or given.get("OTEL_TRACES_EXPORTER") == "none"
    if not wanted or refused:
        return OFF
    if find_spec("opentelemetry") is None or find_spec("opentelemetry.exporter") is None:
        why = "traces are asked for, and OpenTelemetry is not installed"
        if settings.otlp_endpoint is not None:
            raise ConfigError(
                "CONFIG_INVALID", why=f"telemetry.otlp_endpoint: {why}", fix="pip install 'secbeat[telemetry]'"
            )
        # The variables may be meant for other programs of this machine.
        log.warning("OTEL_EXPORTER_OTLP_ENDPOINT is set: %s", why, extra={"action": "no_traces"})
        return OFF
    from secbeat.telemetry.otel import OtelTracing  # noqa: PLC0415 - costs 150 ms and the extra

    try:
        tracing = OtelTracing(service, settings.otlp_endpoint, given)
    except ValueError as error:
        raise ConfigError(
            "CONFIG_INVALID", why=f"OpenTelemetry refuses its OTEL_… variables: {error}", fix="env | grep ^OTEL_"
        ) from None
    protocol = given.get("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL") or given.get("OTEL_EXPORTER_OTLP_PROTOCOL")
    if protocol not in {None, "", "http/protobuf"}:
        log.warning("OTLP is spoken as http/protobuf, not as %s", protocol, extra={"action": "traces_protocol"})
    log.info("Traces go to %s", tracing.endpoint, extra={"action": "traces"})
    return tracing
