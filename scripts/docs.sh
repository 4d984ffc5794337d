#!/usr/bin/env bash
# Build the documentation into docs/_build/html; a warning (a dead link, a missing anchor) is an error.
set -euo pipefail
cd "$(dirname "$0")/.."
mkdir -p docs/reference
python -m secbeat.settings.reference >docs/reference/configuration.md
python -m secbeat.catalogue.reference >docs/reference/codes.md
python -m secbeat.telemetry.reference metrics >docs/reference/metrics.md
python -m secbeat.telemetry.reference logs >docs/reference/logs.md
python -m sphinx -b html -W --keep-going -q docs docs/_build/html
echo "docs/_build/html/index.html"
