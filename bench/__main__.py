"""``python -m bench [NAME …]``: run all benches, or those named, one after the other, each in its own process."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_HERE = Path(__file__).parent


def names() -> list[str]:
    """The targets, from the files ``bench_<target>.py``."""
    return sorted(path.stem.removeprefix("bench_") for path in _HERE.glob("bench_*.py"))


def main(wanted: list[str]) -> int:
    """Run; exit code 0 only if every bench reached its targets."""
    known = names()
    if unknown := [name for name in wanted if name not in known]:
        print(f"no such bench: {', '.join(unknown)} (there are: {', '.join(known)})", file=sys.stderr)
        return 2
    missed = []
    for name in wanted or known:
        print(f"== bench {name}", flush=True)
        # A process of its own: imports and garbage of one bench must not weigh on the memory figures of the next.
        if subprocess.run([sys.executable, "-m", f"bench.bench_{name}"], cwd=_HERE.parent, check=False).returncode:
            missed.append(name)
    if missed:
        print(f"missed or failed: {', '.join(missed)}", file=sys.stderr)
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
