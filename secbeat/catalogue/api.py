"""What an HTTP API answers when it does not do what was asked."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "NOT_AUTHENTICATED",
        "error",
        "No valid token",
        "The request has no Authorization: Bearer header, or its token is unknown or expired.",
        'Send the token: curl -H "Authorization: Bearer $(cat STATE/secrets/admin.token)" …',
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
)
