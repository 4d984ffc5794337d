"""``python -m node --config F``: the same as ``secbeat node``, on a machine without the command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from node.app import main
from secbeat import service
from secbeat.errors import SecbeatError
from secbeat.settings import load


def run(arguments: list[str] | None = None) -> int:
    """Parse, load, run; the exit code."""
    parser = argparse.ArgumentParser(prog="python -m node", description="Run a node: TLS proxy, heartbeats, drain.")
    parser.add_argument("--config", type=Path, help="TOML file; without it defaults and environment")
    options = parser.parse_args(arguments)
    try:
        loaded = load(options.config)
    except SecbeatError as error:
        sys.stderr.write("\n".join(error.lines()) + "\n")
        return error.exit_code
    return service.run("node", lambda stop: main(stop, loaded), log_file=loaded.settings.node.log_file)


if __name__ == "__main__":
    sys.exit(run())
