"""Benches: one module per target, each with the bare library measured in the same run as its reference."""
