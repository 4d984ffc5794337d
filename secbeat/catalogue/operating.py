"""What operations, joins and operators' requests can come to, and the reasons that are not a scaling's."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

_REASONS: tuple[Entry, ...] = (
    Entry(
        "MANUAL",
        "reason",
        "A person asked for it",
        "An operator drained the node, or made one by hand. The audit says who.",
        "See who: secbeat audit",
    ),
    Entry(
        "BOOT_FAILED",
        "reason",
        "A node never joined, so its machine is destroyed",
        "The create operation failed or ran out of time; whatever it made must not stay behind.",
        "Look at the create operation's error: secbeat operations",
    ),
    Entry(
        "NODE_LEFT",
        "reason",
        "A node drained and ended without being told to by this orchestrator",
        "Somebody used the node's own management port, or stopped its process in order.",
        "Nothing: its machine is removed, and the pool is brought back to its size. "
        "To remove a node and have it stay away: secbeat scale POOL N",
    ),
    Entry(
        "JOIN_SECRET_REUSED",
        "reason",
        "A join secret was used twice, so the node is removed",
        "One of the two that presented it is not the machine that it was made for.",
        "Find out how the secret leaked; see the address in: secbeat audit",
    ),
    Entry(
        "UNFINISHED_TEARDOWN",
        "reason",
        "A teardown whose operation is lost is begun anew",
        "The record of the destroy operation is missing: the store was damaged or restored.",
        "Check the machine afterwards, and the store's disk",
    ),
)

_OPERATIONS: tuple[Entry, ...] = (
    Entry(
        "WEBHOOK_UNREACHABLE",
        "error",
        "The provisioner cannot be reached",
        "The connection to the webhook's address was refused or broke. It is tried again, under the same id.",
        "Check provisioning_webhook_url, and that a receiver listens there: curl -i URL",
    ),
    Entry(
        "WEBHOOK_TIMEOUT",
        "error",
        "The provisioner does not answer in time",
        "It may have accepted the request; it is asked again under the same id, so that it cannot act twice.",
        "Check the receiver's log; raise webhook_timeout_seconds if it is only slow",
    ),
    Entry(
        "WEBHOOK_BUSY",
        "error",
        "The provisioner asks to come back later",
        "It answered 408, 429 or 5xx: a limit, a full queue, or a defect of its own.",
        "Read the answer in the operation's error; check the receiver's limits and log",
    ),
    Entry(
        "WEBHOOK_REFUSED",
        "error",
        "The provisioner refuses the request",
        "It answered 3xx or 4xx, which another attempt would not change: wrong signature, address or blueprint.",
        "Read the answer in the operation's error; compare webhook_secret_file on both sides, and the blueprint's name",
    ),
    Entry(
        "EPOCH_SUPERSEDED",
        "error",
        "The provisioner has heard of a newer leader",
        "Another orchestrator of this cluster leads, or the state was restored from a backup.",
        "Make sure that one cluster runs on this NATS; this one steps down and takes a higher epoch",
    ),
    Entry(
        "BOOT_DEADLINE",
        "error",
        "The node did not join in time",
        "The machine was asked for and no node of its identity joined within boot_deadline_seconds.",
        "Look at the job's log: secbeat jobs log OP; can the machine reach the orchestrator and NATS?",
    ),
    Entry(
        "NODE_WITHDRAWN",
        "error",
        "The node was told to go before it was ready",
        "It was drained, retired or revoked while it booted.",
        "Nothing: its machine is destroyed by an operation of its own",
    ),
    Entry(
        "TERMINATE_FAILED",
        "error",
        "The node does not take the order to drain",
        "Its management port and its NATS commands refuse or do not answer. After the deadline it is torn down anyway.",
        "For a node without a join: set [management] auth_token to the token of that node",
    ),
    Entry(
        "DRAIN_OVERDUE",
        "error",
        "The node did not end by itself",
        "It was still there 30 s after its own drain deadline, and was torn down.",
        "Look at the node's log; raise drain_deadline_seconds if requests need longer",
    ),
    Entry(
        "CANNOT_DESTROY",
        "error",
        "The receiver of webhooks cannot destroy machines",
        "deprovisioning_webhook_url is not set: to this receiver a destroy would look like another scale-up.",
        "Remove the named machine yourself, or set deprovisioning_webhook_url to a receiver that can",
    ),
    Entry(
        "TEARDOWN_OVERDUE",
        "error",
        "The teardown did not end in time",
        "The provisioner did not accept it, or its job did not finish. A further operation tries again.",
        "Look at the provisioner: secbeat jobs, and its log",
    ),
)

_JOBS: tuple[Entry, ...] = (
    Entry(
        "JOB_FAILED",
        "error",
        "The provisioner's job failed",
        "The receiver reported a failure without a code of this catalogue.",
        "Read the operation's error, and the job's log: secbeat jobs log OP",
    ),
)

_JOINS: tuple[Entry, ...] = (
    Entry(
        "JOIN_SECRET_WRONG",
        "error",
        "The join is refused",
        "The secret or token is not the one of that operation and node.",
        "Get a fresh join file: secbeat nodes new --pool POOL --join-file FILE",
    ),
    Entry(
        "JOIN_EXPIRED",
        "error",
        "The join secret has expired",
        "It was not used within join_secret_ttl_seconds.",
        "Get a fresh join file: secbeat nodes new --pool POOL --join-file FILE",
    ),
    Entry(
        "JOIN_REUSED",
        "error",
        "The join secret was used before",
        "A secret is good for one join. The node that used it is removed, because one of the two is not genuine.",
        "See where it came from: secbeat audit; then find out how it leaked",
    ),
    Entry(
        "LEGACY_REFUSED",
        "error",
        "Nodes without a join secret are not taken from this address",
        "Registrations in the original's form are accepted from legacy_nodes only.",
        "Give the node a join file (secbeat nodes new), or add its network to legacy_nodes",
    ),
    Entry(
        "NODE_GONE",
        "error",
        "The node's life is over",
        "It was drained, replaced or revoked; its machine is being destroyed, and its identity is never used again.",
        "Stop the node; a new one gets a new identity: secbeat nodes new --pool POOL --join-file FILE",
    ),
    Entry(
        "ADDRESS_REFUSED",
        "error",
        "The orchestrator does not dial this address",
        "It is outside node_networks, or link-local, multicast, unspecified or IPv4-mapped.",
        "If nodes really live there, add the network to node_networks",
    ),
)

_REQUESTS: tuple[Entry, ...] = (
    Entry(
        "OBSERVE_MODE",
        "error",
        "The pool only observes",
        "In mode 'observe' a pool decides and records, and nothing is done about it.",
        'Set mode = "active" in [pools.NAME], then send the orchestrator SIGHUP',
    ),
    Entry(
        "SIZE_OUT_OF_RANGE",
        "error",
        "The size is not within the pool's min and max",
        "A manual size cannot pass the pool's limits.",
        "Choose a size between them, or change min or max in [pools.NAME] and send SIGHUP",
    ),
    Entry(
        "OPERATION_CLOSED",
        "error",
        "The operation has ended, or is of the wrong kind",
        "A join secret is made for a create operation that is still going on.",
        "Look at it: secbeat operations show OP",
    ),
    Entry(
        "NODE_NOT_OURS",
        "error",
        "The node cannot be drained",
        "It is quarantined (nobody here asked for it) or already gone.",
        "Look at it: secbeat why NODE",
    ),
    Entry(
        "NOT_NEXT",
        "reason",
        "Another node leaves first",
        "A pool shrinks by the node with the fewest connections, one at a time.",
        "To remove this one: secbeat drain NODE",
    ),
    Entry(
        "NOT_DRAINING",
        "error",
        "The node is not draining",
        "There is no drain that could be cancelled.",
        "Look at it: secbeat why NODE",
    ),
    Entry(
        "NODE_UNREACHABLE",
        "error",
        "The node does not answer",
        "Neither its management port nor its NATS commands answer.",
        "Try again; look at it: secbeat why NODE",
    ),
    Entry(
        "JOB_MISMATCH",
        "error",
        "The report is not about this operation",
        "Its op_id, node_id or action is not the operation's.",
        "Report the ids that the webhook carried",
    ),
)

ENTRIES: tuple[Entry, ...] = (*_REASONS, *_OPERATIONS, *_JOBS, *_JOINS, *_REQUESTS)
