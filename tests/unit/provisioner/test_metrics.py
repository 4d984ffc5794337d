"""The provisioner's metrics, as a scraper reads them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families as parse

from provisioner.metrics import Metrics
from secbeat import ids
from secbeat.wire.jobs import JobError, JobRecord

START = datetime(2026, 1, 1, tzinfo=UTC)


def samples(metrics):
    families = parse(generate_latest(metrics.registry).decode())
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in families for s in family.samples}


def value(metrics, name, **labels):
    return samples(metrics)[name, tuple(sorted(labels.items()))]


def job(**fields):
    given = {
        "op_id": ids.new_op_id(), "cluster_id": ids.new_cluster_id(), "action": "create", "pool": "web",
        "node_id": ids.new_node_id(), "created_at": START, "deadline": START + timedelta(minutes=15),
        "started_at": START + timedelta(seconds=3), "finished_at": START + timedelta(seconds=10), "state": "succeeded",
    }  # fmt: skip
    return JobRecord(**given | fields)


def test_a_job_counts_by_its_end_and_by_how_long_it_waited_and_ran():
    metrics = Metrics()
    metrics.job_ended(job())
    metrics.job_ended(job(state="failed", error=JobError(code="PLAYBOOK_FAILED", message="no")))
    assert value(metrics, "secbeat_provisioner_job_wait_seconds_sum", action="create") == 6
    assert value(metrics, "secbeat_provisioner_job_seconds_sum", action="create") == 14
    failed = {"action": "create", "pool": "web", "state": "failed", "code": "PLAYBOOK_FAILED"}
    assert value(metrics, "secbeat_provisioner_jobs_total", **failed) == 1


def test_a_thousand_jobs_leave_the_number_of_series_as_it_was():
    metrics = Metrics()
    metrics.job_ended(job())
    before = len(samples(metrics))
    for _ in range(1000):
        metrics.job_ended(job())
    assert len(samples(metrics)) == before


def test_only_webhooks_that_were_taken_count_as_heard():
    now = [100.0]
    metrics = Metrics(now=lambda: now[0])
    assert value(metrics, "secbeat_provisioner_last_webhook_timestamp_seconds") == 0
    metrics.webhook("create", 202)
    now[0] = 200.0
    metrics.webhook("create", 401)
    assert value(metrics, "secbeat_provisioner_last_webhook_timestamp_seconds") == 100
    assert value(metrics, "secbeat_provisioner_webhooks_total", action="create", status="401") == 1
