"""What an HTTP API answers when it does not do what was asked."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "NOT_AUTHENTICATED",
        "error",
        "No valid token",
        "The request has no Authorization: Bearer header, or its token is unknown or expired.",
        "Send a valid one: secbeat … --token-file STATE/secrets/admin.token, or "
        'curl -H "Authorization: Bearer $(cat STATE/secrets/admin.token)" …',
    ),
    Entry(
        "NOT_AUTHORISED",
        "error",
        "The token's scope does not allow this",
        "Scopes are read, operate, admin and service; admin includes the others.",
        "Use a token with the scope that the message names",
    ),
    Entry(
        "TOO_MANY_FAILURES",
        "error",
        "Too many failed logins from this address",
        "Twenty wrong tokens within a minute came from this address.",
        "Wait a minute and use the right token",
    ),
    Entry(
        "HOST_REFUSED",
        "error",
        "The Host header is not one of this service's names",
        "Protects against DNS rebinding: a web page must not reach a loopback API under a name of its own.",
        "Call the service by its listen address, or add the name to allowed_hosts",
    ),
    Entry(
        "ORIGIN_REFUSED",
        "error",
        "A web page of another site sent this request",
        "The Origin or Sec-Fetch-Site header names another site. A page served elsewhere must not make this API act.",
        "Call the service from a command or a program, not from a page of another site",
    ),
    Entry(
        "REQUEST_MALFORMED",
        "error",
        "This is not a well-formed HTTP request",
        "The request line, a header or the framing of the body could not be read, or a header was too long.",
        "Send HTTP/1.1 with headers under 8 KB each; a port that speaks TLS needs https://",
    ),
    Entry(
        "CONTENT_TYPE",
        "error",
        "The body must be JSON",
        "The Content-Type is missing or not application/json.",
        "Send the header: Content-Type: application/json",
    ),
    Entry(
        "BODY_MALFORMED",
        "error",
        "The body is not valid JSON",
        "The JSON parser refused it.",
        "Check the body with: python3 -m json.tool",
    ),
    Entry(
        "BODY_INVALID",
        "error",
        "A field of the body is missing or has a wrong value",
        "The body is JSON but does not have the shape that /api/openapi.json describes.",
        "Compare the body with /docs of this service",
    ),
    Entry(
        "BODY_TOO_LARGE",
        "error",
        "The body is too large",
        "The request's body is over this route's limit.",
        "Send a smaller body",
    ),
    Entry(
        "NOT_FOUND",
        "error",
        "There is no such thing here",
        "The path, or the object that it names, does not exist.",
        "List what exists: secbeat pools, secbeat nodes, secbeat operations",
    ),
    Entry(
        "METHOD_NOT_ALLOWED",
        "error",
        "The path exists, but not with this method",
        "The Allow header of the answer lists the methods.",
        "See /docs of this service",
    ),
    Entry(
        "INTERNAL",
        "error",
        "The service failed on this request",
        "A defect of this program; its log has the traceback under the request's time.",
        "Report it with the log lines around that time",
    ),
    Entry(
        "SIGNATURE_MISSING",
        "error",
        "The webhook is not signed",
        "One of the headers webhook-id, webhook-timestamp, webhook-signature is absent.",
        "Sign the request (Standard Webhooks), or add the sender to unsigned_senders",
    ),
    Entry(
        "SIGNATURE_INVALID",
        "error",
        "The webhook's signature is wrong",
        "The body was changed on its way, or sender and receiver do not share the secret.",
        "Give both sides the same webhook_secret_file",
    ),
    Entry(
        "SIGNATURE_EXPIRED",
        "error",
        "The webhook is too old or from the future",
        "Its timestamp is outside the tolerance: a replayed request, or clocks that disagree.",
        "Check the clocks of both machines: timedatectl",
    ),
    Entry(
        "QUERY_INVALID",
        "error",
        "A query parameter has a wrong value",
        "The part behind the ? of the address does not have the form that /api/openapi.json describes.",
        "Mend the parameter that the message names",
    ),
    Entry(
        "NOT_LEADER",
        "error",
        "This orchestrator does not lead",
        "Only the holder of the lease changes anything; another orchestrator holds it, or the lease is being renewed.",
        "Ask again in a few seconds, or ask the orchestrator that leads: /readyz?verbose names who does",
    ),
    Entry(
        "CHANGED_MEANWHILE",
        "error",
        "Somebody else changed the same thing",
        "The record was written between this request's reading and its writing; nothing of this request was done.",
        "Look at the current state and ask again",
    ),
    Entry(
        "REVISION_INVALID",
        "error",
        "The revision is not one of this API's",
        "If-Match must hold the ETag of an earlier answer; if the body has if_revision as well, both must agree.",
        "Send the ETag as it came, or leave If-Match out",
    ),
    Entry(
        "TOO_MANY_STREAMS",
        "error",
        "Too many open event streams",
        "Each follower of /api/v1/events holds a connection; their number is limited.",
        "Close some, or read with once=1",
    ),
    Entry(
        "RULE_INVALID",
        "error",
        "This address cannot be blocked",
        "Not an IP address or network, or a network so wide that blocking it would cut off a part of the Internet.",
        "Name an address or a network of at least /8 (IPv4) or /16 (IPv6)",
    ),
    Entry(
        "RULE_PROTECTED",
        "error",
        "This address must never be blocked",
        "It covers an address of a node or of the control plane, or a network that the configuration protects: "
        "with a load balancer or a trusted proxy every client behind it would be cut off.",
        "Block the clients' own addresses, or a smaller network; the protected ones are orchestrator.never_block and "
        "node.trusted_proxies in the configuration",
    ),
    Entry(
        "RULES_FULL",
        "error",
        "The blocklist is full",
        "Every node holds the whole list, so its length is limited.",
        "Block networks instead of single addresses, or remove entries: DELETE /api/v1/rules/block_ip/{ip}",
    ),
)
