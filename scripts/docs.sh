#!/usr/bin/env bash
# Build the documentation into docs/_build/html; a warning (a dead link, a missing anchor) is an error.
#
# Generated pages are made anew at every build, so none can be stale.
set -euo pipefail
cd "$(dirname "$0")/.."
python -m scripts.reference
python -m sphinx -b html -W --keep-going -q docs docs/_build/html
echo "docs/_build/html/index.html"
