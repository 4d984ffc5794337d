"""``python -m orchestrator --config FILE``: the same as ``secbeat orchestrator``."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from orchestrator.app import main
from secbeat import service
from secbeat.errors import SecbeatError
from secbeat.settings import load


def run() -> int:
    """The process's exit code."""
    parser = argparse.ArgumentParser(prog="orchestrator", description="Decides and calls the webhook.")
    parser.add_argument("--config", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    try:
        loaded = load(arguments.config)
    except SecbeatError as error:
        print("\n".join(error.lines()), file=sys.stderr)  # noqa: T201 - before any logging exists
        return error.exit_code
    return service.run("orchestrator", lambda stop: main(stop, loaded), log_file=loaded.settings.orchestrator.log_file)


if __name__ == "__main__":
    sys.exit(run())
