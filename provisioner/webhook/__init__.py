"""The webhook: the only way in."""
