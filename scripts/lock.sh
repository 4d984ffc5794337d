#!/usr/bin/env bash
# Resolve pyproject.toml into requirements/all.lock (what runs) and requirements/dev.lock (what runs, tests and builds).
#
# Exact versions with hashes, and no address: which index serves the files is the business of the machine that
# installs. Existing pins are kept; UPGRADE=1 takes the newest versions instead.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=${UV:-.venv/bin/uv}
# Local caches of packages would leak into the result, as hashes of files that nobody else has.
unset PIP_FIND_LINKS UV_FIND_LINKS PIP_CONSTRAINT UV_CONSTRAINT

compile() { # lock extras...
  local lock=$1 extras=() constraint=()
  shift
  for extra in "$@"; do extras+=(--extra "$extra"); done
  [ "$lock" = requirements/all.lock ] || constraint=(--constraint requirements/all.lock)
  "$uv" pip compile pyproject.toml "${extras[@]}" --output-file "$lock" --quiet \
    "${constraint[@]}" --generate-hashes --no-emit-index-url --no-emit-find-links --no-header --no-config \
    --python-version 3.11 --python-platform x86_64-manylinux_2_28 ${UPGRADE:+--upgrade}
  echo "$lock: $(grep -c '==' "$lock") packages"
}

mkdir -p requirements
compile requirements/all.lock all
# Constrained by the first, so that the tests run with what users get.
compile requirements/dev.lock all dev
