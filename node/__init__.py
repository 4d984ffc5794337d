"""The node: a TLS reverse proxy that joins, serves, drains and leaves without a lost request."""
