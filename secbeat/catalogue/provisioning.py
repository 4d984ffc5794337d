"""What the provisioner refuses, and how its jobs fail."""

from __future__ import annotations

from secbeat.catalogue._entry import Entry

ENTRIES: tuple[Entry, ...] = (
    # ---------------------------------------------------------------- blueprints
    Entry(
        "BLUEPRINT_UNKNOWN",
        "error",
        "There is no such blueprint",
        "A pool names a blueprint that this provisioner does not have, or the revision that made a machine is not "
        "kept any more.",
        "Compare [pools.NAME] blueprint with the provisioner's list: curl -s http://127.0.0.1:8000/blueprints",
    ),
    Entry(
        "BLUEPRINT_INVALID",
        "error",
        "A blueprint cannot be used",
        "Its engine is not built, or it sets a variable whose name is reserved or changes how Ansible itself works.",
        "Mend [blueprints.NAME] as the message says, then: secbeat config check FILE",
    ),
    Entry(
        "PLAYBOOK_NOT_FOUND",
        "error",
        "There is no such playbook or inventory",
        "Playbooks and inventories are names of files below playbooks/ and inventories/ of the project; a path, or a "
        "symbolic link that leads out of the project, is never followed.",
        "Put the file there, or mend create_playbook, destroy_playbook, inventory or provisioner.project_dir",
    ),
    # ---------------------------------------------------------------- the webhook
    Entry(
        "WEBHOOK_ACTION",
        "error",
        "The request came in at the wrong door",
        "create belongs to POST /provision, destroy to POST /deprovision.",
        "Mend provisioning_webhook_url and deprovisioning_webhook_url of the orchestrator",
    ),
    Entry(
        "WEBHOOK_ID",
        "error",
        "The webhook's id is not the operation's",
        "The header webhook-id is the op_id, the same on every retry.",
        "Send the op_id as webhook-id and sign again",
    ),
    Entry(
        "EPOCH_TOO_LOW",
        "error",
        "The sender is not the leader any more",
        "A request of this cluster with a higher epoch has been seen: another orchestrator has taken over.",
        "Nothing to do: the leader acts. If there is only one, its state was restored: secbeat doctor",
    ),
    Entry(
        "BODY_TOO_SLOW",
        "error",
        "The body did not arrive in time",
        "A webhook's body has ten seconds to arrive.",
        "Check the network between sender and provisioner",
    ),
    Entry(
        "JOB_QUEUE_FULL",
        "error",
        "Too many jobs wait",
        "As many jobs as provisioner.max_queued_jobs wait or run.",
        "See what they wait for: secbeat jobs — then raise provisioner.max_queued_jobs or max_concurrent_jobs",
    ),
    Entry(
        "CREATION_RATE",
        "error",
        "Too many creations in a minute",
        "The provisioner's own limit, provisioner.max_creations_per_minute, whoever asks.",
        "Wait: the sender tries again. If the growth is meant, raise provisioner.max_creations_per_minute",
    ),
    Entry(
        "POOL_MACHINES_LIMIT",
        "error",
        "The pool has as many machines as its blueprint allows",
        "The provisioner counts machines by its own records: failed ones count until their teardown is proved.",
        "secbeat nodes — then destroy what is not needed, or raise max_machines of the blueprint",
    ),
    Entry(
        "TOTAL_MACHINES_LIMIT",
        "error",
        "All pools together have as many machines as allowed",
        "provisioner.max_machines bounds what this provisioner ever makes.",
        "Destroy what is not needed, or raise provisioner.max_machines",
    ),
    Entry(
        "CREATION_BREAKER_OPEN",
        "error",
        "Creations in this pool failed several times in a row",
        "After provisioner.breaker_failures failures nothing is created for breaker_reset_seconds; then one creation "
        "is let through to try.",
        "Find the cause: secbeat jobs — then secbeat jobs log OP of the last failed one",
    ),
    # ---------------------------------------------------------------- jobs
    Entry(
        "PLAYBOOK_FAILED",
        "error",
        "The playbook failed",
        "A task failed; the message names it, the host and what it said.",
        "Read the log: secbeat jobs log OP — and run the same playbook by hand with ansible-playbook",
    ),
    Entry(
        "PLAYBOOK_INVALID",
        "error",
        "The playbook cannot be run",
        "ansible-playbook refused it before any task: syntax, a missing role, an unreadable inventory.",
        "Check it: ansible-playbook --syntax-check playbooks/NAME.yml",
    ),
    Entry(
        "HOST_UNREACHABLE",
        "error",
        "A host of the playbook could not be reached",
        "Ansible could not connect (SSH, name, key).",
        "Try the same by hand: ansible -i inventories/NAME all -m ansible.builtin.ping",
    ),
    Entry(
        "PROVIDER_LIMIT",
        "error",
        "The provider refused: quota, capacity or rate",
        "The failing task's message speaks of a quota, a rate limit or missing capacity.",
        "Look at the provider's quota; attempts are repeated with growing pauses until the operation's deadline",
    ),
    Entry(
        "RESULT_MISSING",
        "error",
        "The playbook reported no result",
        "It ended well but did not set secbeat_result.",
        "End the playbook with ansible.builtin.set_stats, per_host: false, data: {secbeat_result: …}",
    ),
    Entry(
        "RESULT_INVALID",
        "error",
        "The playbook reported something unusable",
        "create reports {id, name, address, proxy_port, management_port}, destroy {name, gone: true}; the name must be "
        "the one that was asked for.",
        "Mend the set_stats task of the playbook as the message says",
    ),
    Entry(
        "DESTROY_UNPROVED",
        "error",
        "The machine is still there",
        "The playbook says that it removed the machine, the target's own list says otherwise.",
        "curl -s http://127.0.0.1:8000/machines — then run the teardown playbook by hand",
    ),
    Entry(
        "JOB_TIMEOUT",
        "error",
        "The job took too long",
        "It passed its time limit, or the operation's deadline, or printed nothing for a quarter of an hour.",
        "Read the log: secbeat jobs log OP — raise create_timeout_seconds of the blueprint if the work is just slow",
    ),
    Entry(
        "JOB_CANCELLED",
        "error",
        "The job was cancelled",
        "Somebody asked for it; its playbook and everything that it had started were ended.",
        "Nothing to do",
    ),
    Entry(
        "JOB_ENDED",
        "error",
        "The job has ended already",
        "A finished job cannot be cancelled.",
        "secbeat jobs show OP",
    ),
    Entry(
        "JOB_CRASHED",
        "error",
        "The process of the job was killed",
        "It, or the process that starts it, ended by a signal: memory ran out, or somebody killed it.",
        "Look for the out-of-memory killer: journalctl -k | grep -i oom",
    ),
    Entry(
        "JOB_POISON",
        "error",
        "The job was begun again and again and never came to an end",
        "Each attempt ended with the death of the process that ran it.",
        "Read the log: secbeat jobs log OP — and the service's own log around the attempts",
    ),
    Entry(
        "JOB_DIR_UNWRITABLE",
        "error",
        "The job's directory cannot be written",
        "Log and private directory of a job lie under jobs/ of the state directory.",
        "Mend owner, mode or free space of the directory: df -h; ls -ld STATE/jobs",
    ),
    Entry(
        "DEADLINE_PASSED",
        "error",
        "The operation's deadline has passed",
        "The job could not start, or not start again, before the moment after which nobody waits for its result.",
        "See why it waited: secbeat jobs show OP — more parallel jobs, or a longer boot_deadline_seconds",
    ),
    Entry(
        "OPERATION_ENDED",
        "error",
        "The orchestrator has ended the operation",
        "It gives no join secret for an operation that is over or unknown.",
        "secbeat operations show OP",
    ),
    Entry(
        "JOIN_SECRET_UNAVAILABLE",
        "error",
        "The join secret could not be fetched",
        "The orchestrator does not answer, or answers that it cannot now. The attempt is repeated.",
        "Check provisioner.orchestrator_url: curl -s http://127.0.0.1:3030/healthz",
    ),
    Entry(
        "JOIN_SECRET_REFUSED",
        "error",
        "The orchestrator refused the service token",
        "The service token is absent, wrong or without the scope 'service'.",
        "Give both services the same: provisioner.service_token_file, STATE/secrets/tokens.json",
    ),
    Entry(
        "MACHINE_DIR_UNWRITABLE",
        "error",
        "The machine's directory cannot be written",
        "A local node lives in machines/NAME of the state directory: the disk is full or read-only, or something else "
        "stands in its place.",
        "Look at the path that the message names: ls -ld PATH; df -h PATH",
    ),
    # ---------------------------------------------------------------- reasons
    Entry(
        "UNSIGNED_TEARDOWN",
        "reason",
        "A node of an unsigned sender has ended",
        "The sender never asks for a teardown; the provisioner saw the node's last heartbeat and its closed port.",
        "Nothing to do",
    ),
)
