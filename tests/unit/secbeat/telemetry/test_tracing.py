"""Traces: off without a wish, off without the extra, and nothing imported for it."""

from __future__ import annotations

import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest

from node.dataplane.builtin.tls import own_certificate
from secbeat.errors import ConfigError
from secbeat.settings import TelemetrySettings
from secbeat.telemetry import certificates, context, opening, tracing

NONE = TelemetrySettings()
WISH = TelemetrySettings(otlp_endpoint="http://127.0.0.1:4318")


@pytest.mark.parametrize(
    ("settings", "environ"),
    [
        (NONE, {}),
        (NONE, {"OTEL_SERVICE_NAME": "x"}),
        (WISH, {"OTEL_SDK_DISABLED": "true"}),
        (WISH, {"OTEL_TRACES_EXPORTER": "none"}),
    ],
)
def test_without_a_wish_there_are_no_traces(settings, environ):
    assert opening.open_tracing("orchestrator", settings, environ) is tracing.OFF
    assert tracing.OFF.begin() is None


def test_without_a_wish_no_service_imports_opentelemetry():
    code = (
        "import sys, orchestrator.app, provisioner.app, node.app\n"
        "from secbeat.settings import TelemetrySettings\n"
        "from secbeat.telemetry.opening import open_tracing\n"
        "open_tracing('node', TelemetrySettings(), {})\n"
        "print([name for name in sys.modules if name.startswith('opentelemetry')])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_a_configured_collector_without_the_extra_stops_the_start(monkeypatch):
    monkeypatch.setattr(opening, "find_spec", lambda _name: None)
    with pytest.raises(ConfigError, match=r"telemetry\.otlp_endpoint"):
        opening.open_tracing("orchestrator", WISH, {})


def test_a_variable_for_the_whole_machine_without_the_extra_does_not(monkeypatch, caplog):
    monkeypatch.setattr(opening, "find_spec", lambda _name: None)
    found = opening.open_tracing("orchestrator", NONE, {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"})
    assert found is tracing.OFF
    assert "not installed" in caplog.text


def test_variables_that_contradict_each_other_stop_the_start(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_MAX_QUEUE_SIZE", "1")
    with pytest.raises(ConfigError, match="OpenTelemetry refuses"):
        opening.open_tracing("orchestrator", WISH)


@pytest.mark.parametrize("address", ["ftp://x", "127.0.0.1:4318", "http://user:password@collector"])
def test_an_address_that_is_none_or_holds_a_password_is_refused(address):
    with pytest.raises(ValueError, match="otlp_endpoint"):
        TelemetrySettings(otlp_endpoint=address)


def test_whoever_takes_over_names_the_same_span():
    root = f"00-{'a' * 32}-{'b' * 16}-01"
    assert tracing.beneath(root, "op", "attempt", 1) == tracing.beneath(root, "op", "attempt", 1)
    assert tracing.beneath(root, "op", "attempt", 1) != tracing.beneath(root, "op", "attempt", 2)
    assert context.checked(tracing.beneath(root, "op")) is not None


async def test_a_sampler_that_keeps_nothing_is_told_to_the_next_service(monkeypatch):
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_off")
    made = opening.open_tracing("orchestrator", WISH)
    try:
        begun = made.begin()
        assert context.checked(begun) is not None
        assert not context.sampled(begun)
    finally:
        await made.close()


async def test_a_collector_that_is_away_holds_up_no_end(monkeypatch):
    monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "60000")
    made = opening.open_tracing("orchestrator", TelemetrySettings(otlp_endpoint="http://127.0.0.1:9"))
    now = datetime.now(UTC)
    made.record(tracing.Span(traceparent=made.begin(), parent_id=None, name="x", start=now, end=now))
    await made.close()
    assert datetime.now(UTC) - now < timedelta(seconds=5)


def test_the_end_of_a_certificate_is_read_anew_when_its_file_changes(tmp_path):
    read = certificates.expiry(tmp_path / "node.pem")
    assert read() is None
    (tmp_path / "node.pem").write_text("no certificate")
    assert read() is None
    now = datetime.now(UTC)
    made = own_certificate(tmp_path / "made", ["localhost"], now)
    (tmp_path / "node.pem").write_bytes(made.cert_file.read_bytes())
    os.utime(tmp_path / "node.pem", ns=(1, 1))
    assert read() > now.timestamp()
    assert certificates.expiry(None)() is None
