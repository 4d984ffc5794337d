"""The provisioner: a signed webhook in front of the user's own playbooks."""
