"""``python -m provisioner.local start|stop``: what the role `secbeat_node` runs for the target `local`.

Prints one JSON object on standard output; a failure is explained on standard error, exit code 1 (2: wrong usage).
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

from provisioner.local.directory import MachineDir, Tags
from provisioner.local.files import write_whole
from provisioner.local.launch import NODE, start
from provisioner.local.teardown import stop
from secbeat.errors import SecbeatError
from secbeat.paths import default_state_dir


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit code."""
    options = _parser().parse_args(arguments)
    # A cancelled job ends its commands with SIGTERM: unwind, so that a half started node is ended too.
    signal.signal(signal.SIGTERM, _interrupted)
    os.umask(0o077)
    try:
        result = _start(options) if options.action == "start" else _stop(options)
        if options.result:
            write_whole(options.result, json.dumps(result) + "\n")
    except SecbeatError as error:
        print("\n".join(error.lines()), file=sys.stderr)  # noqa: T201 - the command's output
        return error.exit_code
    except OSError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201 - same
        return 1
    print(json.dumps(result))  # noqa: T201 - same
    return 0


def _start(options: argparse.Namespace) -> dict[str, Any]:
    tags = _tags(options)
    config = _config(options.config) if options.config else None
    started = start(
        _directory(options, tags), tags, config=config, command=options.command or NODE, timeout=options.timeout
    )
    return started.plain()


def _config(source: str) -> str:
    data = sys.stdin.buffer.read() if source == "-" else Path(source).read_bytes()
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise SecbeatError("MACHINE_INVALID", why="node.toml: not UTF-8 text") from None


def _stop(options: argparse.Namespace) -> dict[str, Any]:
    tags = _tags(options) if options.directory is None else None
    stopped = stop(_directory(options, tags), grace=options.grace)
    return {"id": options.node_id, **stopped.plain()}


def _tags(options: argparse.Namespace) -> Tags:
    try:
        return Tags(options.node_id or "", options.pool or "", options.op_id or None, options.cluster_id or None)
    except ValueError as error:
        raise SecbeatError("MACHINE_INVALID", why=str(error)) from None


def _directory(options: argparse.Namespace, tags: Tags | None) -> MachineDir:
    if options.directory is not None or tags is None:
        return MachineDir(options.directory.absolute())
    root = options.machines_dir or default_state_dir() / "machines"
    return MachineDir(root.absolute() / tags.name)


def _interrupted(_number: int, _frame: object) -> NoReturn:
    raise SystemExit(128 + signal.SIGTERM)


def _path(text: str) -> Path | None:
    return Path(text) if text else None


def _command(text: str) -> list[str]:
    words = json.loads(text)
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        raise argparse.ArgumentTypeError("wants a JSON list of strings")
    return words


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m provisioner.local", description=__doc__, allow_abbrev=False)
    actions = parser.add_subparsers(dest="action", required=True)
    starter = actions.add_parser("start", help="start a machine, or find it running", allow_abbrev=False)
    stopper = actions.add_parser("stop", help="end a machine and remove its directory", allow_abbrev=False)
    for action in (starter, stopper):
        action.add_argument("--directory", type=_path, help="the machine's directory, …/<pool>-<8 hex digits>")
        action.add_argument("--machines-dir", type=_path, help="its parent (default: machines/ in the state directory)")
        action.add_argument("--node-id", help="UUID of the node")
        action.add_argument("--pool", help="name of the pool")
        action.add_argument("--result", type=_path, help="also write the result to this file")
    for flag in ("--op-id", "--cluster-id"):
        starter.add_argument(flag, help="recorded in machine.json")
        stopper.add_argument(flag, help=argparse.SUPPRESS)
    starter.add_argument("--config", help="node.toml to install; '-' reads standard input (default: already there)")
    starter.add_argument("--timeout", type=float, default=60.0, help="seconds until the ports must be open")
    starter.add_argument("--command", type=_command, help="program instead of the node: a JSON list, given --config F")
    stopper.add_argument("--grace", type=float, help="seconds between SIGTERM and SIGKILL (default: the node's drain)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
