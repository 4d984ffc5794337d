"""``python -m provisioner --config FILE``: the service without the command around it."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from provisioner.app import main as service
from secbeat.errors import SecbeatError
from secbeat.service import run
from secbeat.settings import load


def main(arguments: list[str] | None = None) -> int:
    """Load the settings and run the service; the process's exit code."""
    parser = argparse.ArgumentParser(prog="provisioner", description="Run the SecBeat provisioner.")
    parser.add_argument("--config", type=Path, help="TOML file; without it defaults and SECBEAT_… variables hold")
    chosen = parser.parse_args(arguments)
    try:
        loaded = load(chosen.config)
    except SecbeatError as error:
        sys.stderr.write("\n".join(error.lines()) + "\n")
        return error.exit_code
    return run("provisioner", lambda stop: service(stop, loaded), log_file=loaded.settings.provisioner.log_file)


if __name__ == "__main__":
    sys.exit(main())
