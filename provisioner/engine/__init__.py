"""The engines: what turns one job into a run of the operator's own playbook."""
