"""``python -m scripts.reference``: write every generated page into docs/reference/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from scripts.reference import api, commands, environment, exit_codes, links, states
from secbeat.catalogue import reference as codes
from secbeat.settings import reference as configuration
from secbeat.telemetry import reference as telemetry

ROOT = Path(__file__).parents[2]
PAGES: Mapping[str, Callable[[], str]] = {
    "configuration": configuration.markdown,
    "codes": codes.page,
    "commands": commands.page,
    "exit-codes": exit_codes.page,
    "environment": environment.page,
    "api": api.page,
    "metrics": telemetry.metrics,
    "logs": telemetry.logs,
    "states": states.page,
    "links": lambda: links.page(ROOT),
}


def main() -> None:
    """Write the pages; one whose text is the same keeps its time, so that Sphinx does not read it again."""
    directory = ROOT / "docs" / "reference"
    directory.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        path, text = directory / f"{name}.md", page()
        if not path.exists() or path.read_text() != text:
            path.write_text(text)


if __name__ == "__main__":
    main()
