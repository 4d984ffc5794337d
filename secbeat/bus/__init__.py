"""NATS: the one adapter around nats-py, the embedded server, the identities."""
