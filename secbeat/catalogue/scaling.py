"""Why a fleet grew, shrank or stayed as it is: one code for every outcome of an evaluation."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    # ------------------------------------------------------------------ it scales
    Entry(
        "HIGH_FLEET_CPU_LOAD",
        "reason",
        "Scaled up: the fleet's CPU load is high",
        "The mean CPU of the nodes with fresh metrics was above scale_up_cpu_threshold for scale_up_checks checks.",
        "Nothing, if the load is real. Else raise scale_up_cpu_threshold, scale_up_checks or max of the pool",
    ),
    Entry(
        "LOW_FLEET_CPU_LOAD",
        "reason",
        "Scaled down: the fleet's CPU load is low",
        "The mean CPU was below scale_down_cpu_threshold for scale_down_checks checks, and the pool is over its min.",
        "Nothing. To keep the size: secbeat pause POOL --direction in, or raise min",
    ),
    Entry(
        "BELOW_MIN_FLEET_SIZE",
        "reason",
        "Scaled up: the pool has fewer nodes than min",
        "Nodes left or failed, or min was raised. A pool below min is restored at once, whatever the CPU says.",
        "Nothing. If it repeats, see why nodes go: secbeat operations, secbeat decisions",
    ),
    Entry(
        "ABOVE_MAX_FLEET_SIZE",
        "reason",
        "Scaled down: the pool has more nodes than max",
        "max was lowered, or nodes joined that nobody had asked for.",
        "Nothing. To keep them: raise max of the pool",
    ),
    Entry(
        "UNEXPECTED_NODE_FAILURE",
        "reason",
        "A node died",
        "It sent no heartbeat for three of its intervals and its own management port does not answer either. It is "
        "replaced, one per interval, or only removed where the pool has enough nodes without it.",
        "See the node's own log; secbeat nodes show NODE tells when it was last heard",
    ),
    Entry(
        "OVERRIDE",
        "reason",
        "An operator set the size",
        "'secbeat scale' holds the pool at a size until the override ends; the thresholds wait until then.",
        "To give the pool back to the policy: secbeat resume POOL",
    ),
    Entry(
        "RETIRED",
        "reason",
        "The pool is retired: it goes to zero and stays there",
        "An administrator retired it, or 'secbeat up' is stopping.",
        "To use the pool again: secbeat resume POOL",
    ),
    # ------------------------------------------------------------------ it holds: nothing to do
    Entry(
        "BETWEEN_THRESHOLDS",
        "reason",
        "Held: the load is between the thresholds",
        "The mean CPU is neither above scale_up_cpu_threshold nor below scale_down_cpu_threshold.",
        "Nothing: this is the normal state",
    ),
    Entry(
        "WAITING_FOR_CHECKS",
        "reason",
        "Held: the load has not lasted long enough",
        "The mean CPU crossed a threshold, but not yet for scale_up_checks (scale_down_checks) checks in a row.",
        "Nothing. To react sooner lower the checks or scaling_check_interval_seconds; fewer checks may flap",
    ),
    # ------------------------------------------------------------------ it holds: sizes and operators
    Entry(
        "AT_MAX",
        "reason",
        "Held: the pool is at max",
        "It has max nodes, booting ones included. Draining and dead nodes do not count.",
        "Raise max of the pool in the configuration, if the machines are there: secbeat config check F",
    ),
    Entry(
        "AT_MIN",
        "reason",
        "Held: the pool is at min",
        "The load would allow fewer nodes, but the pool never shrinks below min.",
        "Nothing. Lower min of the pool if it is too large",
    ),
    Entry(
        "PAUSED_OUT",
        "reason",
        "Held: growth is paused",
        "An operator paused scale-up; not even a pool below min grows.",
        "secbeat resume POOL",
    ),
    Entry(
        "PAUSED_IN",
        "reason",
        "Held: shrinking is paused",
        "An operator paused scale-down.",
        "secbeat resume POOL",
    ),
    Entry(
        "PAUSED_BOTH",
        "reason",
        "Held: the pool is paused",
        "An operator paused the pool in both directions.",
        "secbeat resume POOL",
    ),
    Entry(
        "POOL_VANISHED",
        "reason",
        "Held: the pool is no longer in the configuration",
        "A pool that vanishes from the file is paused and never emptied.",
        "Put the pool back into the file, or empty it on purpose: retire it before you remove it",
    ),
    Entry(
        "PROTECTED",
        "reason",
        "The node is protected",
        "An operator protected it: no scale-down chooses it.",
        "secbeat protect NODE --off",
    ),
    Entry(
        "ALL_PROTECTED",
        "reason",
        "Held: every node is protected",
        "The pool should shrink, but each of its nodes is protected.",
        "secbeat protect NODE --off, for a node that may leave",
    ),
    Entry(
        "NO_VICTIM",
        "reason",
        "Held: no node is fit to leave",
        "Those that are not protected are still booting or warming up, or send no fresh metrics.",
        "Wait for the next check; secbeat nodes shows which nodes are silent",
    ),
    # ------------------------------------------------------------------ it holds: earlier scalings
    Entry(
        "COOLDOWN_UP",
        "reason",
        "Held: the last scale-up is too recent",
        "scale_up_cooldown_seconds have not passed since the last scale-up.",
        "Nothing. Lower scale_up_cooldown_seconds if the pool grows too slowly",
    ),
    Entry(
        "COOLDOWN_DOWN",
        "reason",
        "Held: the last scaling is too recent to shrink",
        "scale_down_cooldown_seconds have not passed since the last scaling in any direction.",
        "Nothing. Lower scale_down_cooldown_seconds if the pool shrinks too slowly",
    ),
    Entry(
        "BOOTING_CAPACITY",
        "reason",
        "Held: nodes are on their way",
        "Requested and booting nodes count as capacity until they join or their operation fails.",
        "If it lasts, see what the boot waits for: secbeat operations, secbeat jobs log OP",
    ),
    Entry(
        "WARMING_UP",
        "reason",
        "Held: nodes have just joined",
        "A node's load does not count for warmup_seconds after its join, and nobody who has just joined is removed.",
        "Nothing. Lower warmup_seconds if your nodes take load sooner",
    ),
    Entry(
        "DRAINING_FIRST",
        "reason",
        "Held: a node is still draining",
        "The next node leaves when the load of the one before has moved. Draining never holds up growth.",
        "If it lasts: secbeat why NODE",
    ),
    Entry(
        "WOULD_FLAP",
        "reason",
        "Held: the pool would have to grow again at once",
        "With one node less the same load would put the mean above scale_up_cpu_threshold.",
        "Put the thresholds further apart: lower scale_down_cpu_threshold",
    ),
    Entry(
        "REPLACEMENT_PACED",
        "reason",
        "Held: one replacement per interval",
        "A node was replaced less than one check interval ago.",
        "Nothing: the next one follows with the next check",
    ),
    Entry(
        "OPEN_OPERATIONS_LIMIT",
        "reason",
        "Limited: too many open operations",
        "max_open_operations or max_open_operations_per_pool is reached.",
        "See what is open: secbeat operations. Raise the limit if your provisioner can do more at once",
    ),
    # ------------------------------------------------------------------ it holds: something is wrong
    Entry(
        "NO_FRESH_METRICS",
        "reason",
        "Held: no node has fresh metrics",
        "Nodes beat without valid metrics, or have not sent any since the orchestrator started. Missing data changes "
        "nothing.",
        "See what the nodes send: secbeat nodes; the metric of rejected heartbeats says why they were not applied",
    ),
    Entry(
        "TOO_FEW_FRESH_METRICS",
        "reason",
        "Held: too few nodes have fresh metrics",
        "Less than min_fresh_fraction of the nodes sent fresh metrics. Missing data changes nothing.",
        "See which nodes are silent: secbeat nodes",
    ),
    Entry(
        "STALE_METRICS",
        "reason",
        "The node's metrics are stale",
        "It beats, but without metrics that could be applied.",
        "See the node's log; the orchestrator counts rejected heartbeats by reason in its metrics",
    ),
    Entry(
        "SILENT",
        "reason",
        "The node is silent",
        "No heartbeat came for three of its intervals. It counts until its own port has been tried as well.",
        "Look at the node and at its way to NATS: secbeat why NODE, secbeat doctor",
    ),
    Entry(
        "SILENT_NODES",
        "reason",
        "Held: the pool does not shrink while nodes are silent",
        "What a silent or dead node carried may come back, or have moved to the others.",
        "Look at the nodes that are silent: secbeat nodes",
    ),
    Entry(
        "MASS_SILENCE",
        "reason",
        "Frozen: too many nodes are silent at once",
        "More than max(1, 20 %) of the pool silent or dead is an outage of NATS or of the network, not of the nodes. "
        "Nothing is created or destroyed until heartbeats return.",
        "Check NATS and the network first: secbeat doctor. If the nodes are really gone: secbeat resume POOL",
    ),
    Entry(
        "BREAKER_OPEN",
        "reason",
        "Held: nodes that were asked for never joined",
        "breaker_failures boots in a row ended without a join. One more is tried after breaker_reset_seconds.",
        "See why the last one failed: secbeat jobs log OP. To try at once: secbeat resume POOL",
    ),
    Entry(
        "BREAKER_PROBE",
        "reason",
        "Limited: one try after boots that never joined",
        "The breaker lets one node through; if it joins, the pool grows normally again.",
        "Nothing. See why the boots before failed: secbeat operations",
    ),
)
