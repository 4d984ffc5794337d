"""A node's metrics: ours, and those of the original's names that we can honour."""

from __future__ import annotations

from functools import partial

from secbeat.telemetry.catalogue._metric import Metric

_counter = partial(Metric, service="node", kind="counter")
_gauge = partial(Metric, service="node", kind="gauge")
_untyped = partial(Metric, service="node", kind="untyped")

TRAFFIC = (
    _counter(name="secbeat_node_requests_total", help="Requests received."),
    _counter(name="secbeat_node_requests_proxied_total", help="Requests passed to the upstream."),
    _counter(name="secbeat_node_responses_failed_total", help="Responses with a status of 500 or more."),
    _counter(name="secbeat_node_requests_blocked_total", help="Requests refused by the blocklist."),
    _counter(name="secbeat_node_requests_over_limit_total", help="Requests refused by max_connections."),
    _counter(name="secbeat_node_websockets_total", help="WebSockets opened."),
    _counter(name="secbeat_node_tls_handshakes_total", help="TLS handshakes completed."),
    _gauge(name="secbeat_node_connections", help="Client connections now."),
    _gauge(name="secbeat_node_in_flight", help="Requests being served now."),
    _gauge(name="secbeat_node_blocklist_entries", help="Entries of the blocklist."),
)

LOAD = (
    _gauge(name="secbeat_node_cpu_ratio", help="CPU in use over the last heartbeat interval, 0 to 1.", unit="ratio"),
    _gauge(name="secbeat_node_memory_ratio", help="Memory in use, 0 to 1.", unit="ratio"),
    _gauge(name="secbeat_node_requests_per_second", help="Over the last heartbeat interval."),
    _gauge(
        name="secbeat_node_latency_seconds",
        help="Latency quantiles over the last heartbeat interval.",
        labels=("quantile",),
        values={"quantile": "`0.5`, `0.95`, `0.99`"},
        unit="seconds",
    ),
    _gauge(name="secbeat_node_draining", help="1 while the node drains."),
)

# Those of the original's packet filter and WAF are left out: zero would be a claim.
ORIGINAL = (
    _untyped(name="https_requests_received", help="The original's name: requests received."),
    _untyped(name="requests_proxied", help="The original's name: requests passed to the upstream."),
    _untyped(name="tls_handshakes_completed", help="The original's name: TLS handshakes completed."),
    _untyped(name="http_errors_total", help="The original's name: responses with an error."),
    _untyped(name="blocked_requests_total", help="The original's name: requests refused by the blocklist."),
    _untyped(name="l7_proxy_blocked_blacklist", help="The original's name: requests refused by the blocklist."),
    _untyped(
        name="l7_proxy_blocked_connection_limit", help="The original's name: requests refused by max_connections."
    ),
    _gauge(name="active_connections", help="The original's name: client connections now."),
    _gauge(name="ddos_blacklist_size", help="The original's name: entries of the blocklist."),
)

NODE = (*TRAFFIC, *LOAD, *ORIGINAL)
