"""What an installation gets: four packages, the bundled playbooks and inventories, one command; nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = {"secbeat", "orchestrator", "node", "provisioner"}
pytestmark = pytest.mark.xdist_group("wheel")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    directory = tmp_path_factory.mktemp("wheel")
    run = subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    (path,) = directory.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        yield archive


def text(wheel, name: str) -> str:
    (path,) = [path for path in wheel.namelist() if path.endswith(f".dist-info/{name}")]
    return wheel.read(path).decode()


def test_the_top_level_names_are_the_four_packages(wheel):
    names = {name.partition("/")[0] for name in wheel.namelist()}
    assert {name for name in names if not name.endswith(".dist-info")} == PACKAGES
    assert len(names) == len(PACKAGES) + 1


def test_every_package_has_its_type_marker_and_no_leftovers(wheel):
    names = wheel.namelist()
    for package in PACKAGES:
        assert f"{package}/__init__.py" in names
        assert f"{package}/py.typed" in names
    assert not [name for name in names if "__pycache__" in name or name.endswith((".pyc", ".orig", ".retry"))]
    assert not [name for name in names if "/tests/" in name or name.startswith("tests/")]


def test_python_stands_only_in_the_packages_and_the_rest_only_in_the_bundle(wheel):
    allowed = (".py", "/py.typed")
    strangers = [
        name
        for name in wheel.namelist()
        if not name.endswith(allowed)
        and ".dist-info/" not in name
        and not name.startswith("provisioner/_bundle/")
        and not name.endswith((".j2", ".html", ".json", ".lua", ".toml", ".yml"))
    ]
    assert strangers == []


@pytest.mark.parametrize("folder", ["playbooks", "inventories"])
def test_the_bundle_has_exactly_the_files_that_a_person_would_run(wheel, folder):
    prefix = f"provisioner/_bundle/{folder}/"
    bundled = {name.removeprefix(prefix): wheel.read(name) for name in wheel.namelist() if name.startswith(prefix)}
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "--", folder],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=30,
    )  # fmt: skip
    files = {Path(name).relative_to(folder).as_posix(): ROOT / name for name in listed.stdout.splitlines()}
    present = {name: path.read_bytes() for name, path in files.items() if path.is_file()}
    assert bundled == present
    assert bundled


def test_the_command_is_installed(wheel):
    assert "secbeat = secbeat.cli:main" in text(wheel, "entry_points.txt")


def test_the_licence_and_the_extras_are_declared(wheel):
    metadata = text(wheel, "METADATA")
    assert "License-Expression: Apache-2.0" in metadata
    for extra in ("node", "orchestrator", "provisioner", "all"):
        assert f"Provides-Extra: {extra}" in metadata
    assert [name for name in wheel.namelist() if name.endswith("/licenses/LICENSE")]


def test_a_node_installs_neither_ansible_nor_a_nats_server():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert not [need for need in extras["node"] if "ansible" in need or "nats-server" in need]


def test_no_dependency_comes_from_an_address():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    needs = [*project["dependencies"], *(need for extra in project["optional-dependencies"].values() for need in extra)]
    assert not [need for need in needs if "://" in need or "@" in need]
