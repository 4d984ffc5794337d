"""What a node refuses: at its start, at its join, on its management API."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    Entry(
        "MANAGEMENT_TOKEN_MISSING",
        "error",
        "The management API has no token",
        "A node that joins without a join file needs a token of its own in [management]; without one nobody could "
        "terminate it, or everybody could.",
        "Set [management] auth_token_file to a file of mode 0600 (openssl rand -hex 32 > FILE), or enabled = false",
    ),
    Entry(
        "JOIN_FILE_INVALID",
        "error",
        "The join file cannot be used",
        "It is absent, not a join file, readable by others, for another node, or past its time.",
        "Make a new one: secbeat nodes new --pool POOL --join-file FILE",
    ),
    Entry(
        "JOIN_REFUSED",
        "error",
        "The orchestrator refused this node",
        "The join secret was used already, is past its time, or belongs to another operation or cluster.",
        "Make a new one: secbeat nodes new --pool POOL --join-file FILE — and find out who used the old one",
    ),
    Entry(
        "NODE_CREDENTIALS_INVALID",
        "error",
        "The node's stored credentials cannot be read",
        "The file in the state directory is damaged or was written by a newer version.",
        "Remove the file named above and join again with a new join file",
    ),
    Entry(
        "TERMINATE_WRONG_TARGET",
        "error",
        "The command is meant for another node or an earlier life of this one",
        "node_id or boot_id in the body are not this node's.",
        "Look the node up again: secbeat nodes",
    ),
    Entry(
        "TERMINATE_STALE_EPOCH",
        "error",
        "The command comes from an orchestrator that is no longer the leader",
        "Its epoch is lower than one that this node has seen.",
        "Nothing to do: the present leader decides anew",
    ),
    Entry(
        "TERMINATE_UNGUARDED",
        "error",
        "The command does not say which node it is meant for",
        "A node with a token of its own wants node_id, boot_id and epoch in the body, so that a stale or misdirected "
        "call cannot end another node.",
        "Use: secbeat drain NODE — or knowingly set [management] allow_legacy_terminate = true",
    ),
    Entry(
        "DRAIN_TOO_LATE",
        "error",
        "The drain can no longer be cancelled",
        "The listener has closed; clients have gone elsewhere.",
        "Let the node end; the pool's policy brings another one if it is needed",
    ),
    Entry(
        "NODE_NOT_IMPLEMENTED",
        "error",
        "This node does not do that",
        "The route belongs to the original's packet filter, which is not part of this data plane.",
        "See /docs of this service for what there is",
    ),
    Entry(
        "HAPROXY_MISSING",
        "error",
        "The driver haproxy finds no HAProxy",
        "There is no such program on the PATH or in /usr/sbin, or it is another one.",
        "Install it (sudo apt-get install haproxy; systemctl disable --now haproxy), set [node] haproxy to its path, "
        'or set [node] driver = "builtin"',
    ),
    Entry(
        "HAPROXY_TOO_OLD",
        "error",
        "HAProxy is too old",
        "The driver needs version 2.6 or later.",
        "Install a later one (haproxy.debian.net has packages) and set [node] haproxy to its path, or set "
        '[node] driver = "builtin"',
    ),
    Entry(
        "HAPROXY_REFUSED",
        "error",
        "HAProxy refuses its configuration",
        "haproxy -c said so, or a reload failed; the sentence above is its own.",
        "See haproxy/haproxy.cfg and haproxy/haproxy.log in the node's state directory; most often an address that "
        "cannot be resolved, or a certificate that does not fit its key",
    ),
    Entry(
        "HAPROXY_FAILED",
        "error",
        "HAProxy does not start",
        "It ended at once, or did not answer on its socket; the sentence above is its own.",
        "See haproxy/haproxy.log in the node's state directory",
    ),
)
