"""What the service tells the fork server about a job; of its own, because only the latter imports ansible_runner."""

from __future__ import annotations

from dataclasses import dataclass

MAX_MESSAGE = 128 * 1024


@dataclass(frozen=True)
class Spec:
    """What a job process is told; plain data, no secrets.

    ``job`` names this attempt at the job (`marks`). ``private_dir`` is fresh and 0700, with ``env/extravars`` and
    ``env/settings`` in it. ``playbook`` and ``inventory`` are absolute paths that the registry has checked.
    """

    job: str
    ident: str
    private_dir: str
    project_dir: str
    playbook: str
    inventory: str
    environment: dict[str, str]
    grace_seconds: float
