"""The shared language imports a service only where a command starts it, inside a function."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
SERVICES = {"orchestrator", "node", "provisioner"}
LAZY = {"cli", "up", "demo"}
FILES = sorted((ROOT / "secbeat").rglob("*.py"))


def imported(node: ast.AST) -> set[str]:
    if isinstance(node, ast.Import):
        return {alias.name.partition(".")[0] for alias in node.names}
    if isinstance(node, ast.ImportFrom) and not node.level:
        return {(node.module or "").partition(".")[0]}
    return set()


def service_imports(path: Path) -> list[tuple[int, bool]]:
    """(line, inside a function) of each import of a service."""
    tree = ast.parse(path.read_text(), str(path))
    inside = {
        inner
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        for inner in ast.walk(node)
    }
    return [(node.lineno, node in inside) for node in ast.walk(tree) if imported(node) & SERVICES]


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_services_are_imported_only_lazily_and_only_by_the_command(path):
    for line, inside_a_function in service_imports(path):
        assert path.relative_to(ROOT).parts[1] in LAZY, f"{path}:{line}"
        assert inside_a_function, f"{path}:{line} imports a service before it is started"


def test_an_import_of_a_service_would_be_seen(tmp_path):
    path = tmp_path / "sample.py"
    path.write_text("from node import app\ndef start():\n    import provisioner.app\n    from secbeat import up\n")
    assert service_imports(path) == [(1, False), (3, True)]


@pytest.mark.parametrize("service", ["orchestrator", "provisioner"])
def test_a_service_without_certificates_and_traces_does_not_pay_their_memory(service):
    code = (
        f"import sys, {service}.app; print([name for name in ('cryptography', 'opentelemetry') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"
