"""The command starts fast, because it imports nothing heavy before a command needs it."""

from __future__ import annotations

import resource
import subprocess
import sys

import pytest

# Typer itself imports pydantic as soon as it reads the value of an option, so only the help can do without.
HEAVY = ("aiohttp", "nats", "rich", "yaml", "cryptography", "ansible_runner", "prometheus_client")
SERVICES = ("orchestrator", "node", "provisioner")
_PROBE = """
import sys
from secbeat.cli import main
code = main({arguments!r})
print(code, *sorted({{name.partition(".")[0] for name in sys.modules}}), file=sys.stderr)
"""


def modules_after(*arguments: str) -> set[str]:
    run = subprocess.run(
        [sys.executable, "-c", _PROBE.format(arguments=list(arguments))],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return set(run.stderr.split())


@pytest.mark.parametrize("arguments", [["--help"], []], ids=str)
def test_help_imports_no_library_of_the_services(arguments):
    loaded = modules_after(*arguments)
    assert "typer" in loaded
    assert loaded.isdisjoint({*HEAVY, *SERVICES, "pydantic"})


@pytest.mark.parametrize("arguments", [["--version"], ["scale", "--help"], ["explain", "USAGE"]], ids=str)
def test_it_imports_neither_the_services_nor_their_libraries(arguments):
    loaded = modules_after(*arguments)
    assert "typer" in loaded
    assert loaded.isdisjoint({*HEAVY, *SERVICES})


def test_a_client_command_needs_no_library_of_the_services(stub):
    loaded = modules_after("pools", "--url", stub.url)
    assert loaded.isdisjoint({*HEAVY, *SERVICES})


def cpu_seconds(*command: str) -> float:
    """The least CPU time of three runs: other work on the machine disturbs upward only."""
    used = []
    for _ in range(3):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        subprocess.run([sys.executable, *command], capture_output=True, timeout=60, check=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        used.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(used)


def test_help_costs_little_more_cpu_than_typer_itself():
    typer = cpu_seconds("-c", "import typer")
    ours = cpu_seconds("-m", "secbeat", "--help")
    # 0.2 s on a machine that imports Typer in 0.06 s; on a slower or busier one in proportion.
    assert ours <= max(0.2, 3.4 * typer), f"help {ours:.3f} s, typer {typer:.3f} s"
