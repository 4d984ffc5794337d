"""What the tests of the monitoring files share: the files, the catalogue, and the names in an expression."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest
import yaml

from secbeat.telemetry.catalogue import CATALOGUE

ROOT = Path(__file__).parents[2]
# What Prometheus adds to every series, and the series that it makes itself.
TARGET_LABELS = {"instance", "job"}
OWN = {"up": frozenset()}

_WORDS = {"by", "without", "on", "ignoring", "group_left", "group_right", "and", "or", "unless", "bool", "offset"}
_STRING = re.compile(r'"(?:[^"\\]|\\.)*"')
_SELECTOR = re.compile(r"(?<![\w$])([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?")
_LABEL = re.compile(r"([a-zA-Z_]\w*)\s*(?:=~|!~|!=|=)")
_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)")


def series() -> dict[str, frozenset[str]]:
    """Every series of the catalogue with its labels."""
    found = dict(OWN)
    for entries in CATALOGUE.values():
        for metric in entries.values():
            for name in metric.series:
                extra = {"le"} if name.endswith("_bucket") else set()
                found[name] = frozenset(metric.labels) | extra
    return found


def used(expression: str) -> tuple[set[str], set[str], list[tuple[str, set[str]]]]:
    """The metrics of a PromQL expression, the labels it groups by, and each selector's labels."""
    text = _STRING.sub('""', expression)
    grouped = {label.strip() for group in _GROUPING.findall(text) for label in group.split(",") if label.strip()}
    text = re.sub(r"\[[^\]]*\]", "", _GROUPING.sub(" ", text))
    selectors = []
    for match in _SELECTOR.finditer(text):
        name, labels = match[1], match[2]
        if name in _WORDS or text[match.end() :].lstrip().startswith("("):
            continue
        if re.fullmatch(r"\d+[smhdwy]?|e\d+", name):
            continue
        selectors.append((name, set(_LABEL.findall(labels or ""))))
    return {name for name, _ in selectors}, grouped, selectors


def problems(expression: str) -> list[str]:
    """What an expression names that the catalogue has not."""
    known = series()
    names, grouped, selectors = used(expression)
    found = [f"no such metric: {name}" for name in names - set(known)]
    available = {label for name in names for label in known.get(name, ())} | TARGET_LABELS
    found += [f"no metric of it has label {label}" for label in grouped - available]
    found += [
        f"{name} has no label {label}"
        for name, labels in selectors
        for label in labels - known.get(name, frozenset()) - TARGET_LABELS
    ]
    return found


@pytest.fixture(scope="session")
def check():
    """Problems of an expression by the catalogue."""
    return problems


@pytest.fixture(scope="session")
def rules():
    """Every alert rule."""
    text = (ROOT / "monitoring/alerts/secbeat.yml").read_text()
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


@pytest.fixture(scope="session")
def dashboard():
    """The dashboard's file."""
    return json.loads((ROOT / "monitoring/grafana/secbeat.json").read_text())


@pytest.fixture(scope="session")
def builder():
    """The program that writes the dashboard."""
    spec = importlib.util.spec_from_file_location("dashboard_builder", ROOT / "monitoring/grafana/build.py")
    module = importlib.util.module_from_spec(spec)
    import sys

    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def root():
    return ROOT
