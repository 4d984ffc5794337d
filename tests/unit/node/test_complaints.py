from __future__ import annotations

import logging

from node.dataplane.builtin import complaints


def test_a_flood_of_failures_is_one_line_each_five_seconds_with_what_was_left_out(monkeypatch, caplog):
    now = 100.0
    monkeypatch.setattr(complaints.time, "monotonic", lambda: now)
    complain = complaints.Complaints(logging.getLogger("proxy"), "upstream_failed")
    for _ in range(1000):
        complain("GET: %d", 502)
    now = 105.1
    complain("GET: %d", 504)
    assert [record.getMessage() for record in caplog.records] == ["GET: 502", "GET: 504"]
    assert [record.unsaid_before for record in caplog.records] == [0, 999]
