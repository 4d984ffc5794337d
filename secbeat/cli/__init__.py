"""The command ``secbeat``: thin, fast to start, and the only place that knows every service.

Nothing heavy is imported before a command runs: ``secbeat --help`` must not pay for aiohttp, nats or pydantic.
"""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["main"]


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command with ``argv`` (default: the process's arguments); the exit code."""
    from secbeat.cli.app import run

    return run(argv)
