"""The node: a reverse proxy whose agent joins the fleet, reports its load and leaves without losing a request."""
