#!/usr/bin/env bash
# Make .venv: an interpreter of its own with exactly the locked packages and this checkout, installed editable.
#
# Needs python3.11 or newer and a package index that pip can reach; no root. A second run with unchanged inputs does
# nothing. Two runs at once wait for each other.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly venv=.venv lock=requirements/dev.lock attempts=3
say() { echo "bootstrap: $*" >&2; }
die() {
  say "$1"
  shift
  printf '  fix: %s\n' "$@" >&2
  exit 2
}

# shellcheck source=scripts/privileges.sh
. scripts/privileges.sh

find_python() {
  local candidate
  for candidate in "${PYTHON:-}" python3.11 python3 python3.12 python3.13; do
    [ -n "$candidate" ] || continue
    if "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
      command -v "$candidate"
      return
    fi
  done
  die "there is no Python 3.11 or newer" "apt-get install python3 python3-venv" "or name one: make PYTHON=/path/to/python3.11 …"
}

fingerprint() { # of everything that decides what .venv must contain, its own place included
  {
    sha256sum "$lock" pyproject.toml secbeat/__init__.py
    "$python" -VV
    pwd -P
  } | sha256sum | cut -d' ' -f1
}

# Debian ships the venv module without ensurepip, unless python3-venv is installed.
make_venv() {
  rm -rf "$venv"
  if "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    "$python" -m venv "$venv"
  elif may_install && apt_install python3-venv; then
    "$python" -m venv "$venv"
  elif "$python" -m pip --version >/dev/null 2>&1; then
    say "python3-venv is not installed; the system's pip fills the environment instead"
    "$python" -m venv --without-pip "$venv"
    retry "$python" -m pip --python "$venv/bin/python" install --quiet pip
  elif "$python" -m virtualenv --version >/dev/null 2>&1; then
    "$python" -m virtualenv --quiet "$venv"
  else
    die "this Python can make no virtual environment (no ensurepip, no pip, no virtualenv)" \
      "sudo apt-get install python3-venv"
  fi
}

retry() {
  local attempt
  for ((attempt = 1; attempt <= attempts; attempt++)); do
    if "$@"; then return 0; fi
    [ "$attempt" = "$attempts" ] || {
      say "failed (attempt $attempt of $attempts), again in $((attempt * 5)) s"
      sleep $((attempt * 5))
    }
  done
  die "could not install the packages (pip's own words are above)" \
    "check that pip reaches a package index: $venv/bin/pip download --no-deps --dest /tmp pip" \
    "behind a proxy or a mirror, set HTTPS_PROXY or PIP_INDEX_URL"
}

install_packages() {
  local pip=("$venv/bin/python" -m pip install --quiet --disable-pip-version-check --no-input --retries 5 --timeout 60)
  say "installing $(grep -c '==' "$lock") packages from $lock (a minute or two the first time)"
  retry "${pip[@]}" --require-hashes --requirement "$lock"
  # Built with the hatchling of the lock: nothing unlocked is fetched to build us.
  "${pip[@]}" --no-deps --no-build-isolation --editable .
}

main() {
  [ -w . ] || die "$(pwd) is not writable for $(id -un)" "clone the repository as this user"
  python=$(find_python)
  exec 9>.bootstrap.lock
  flock 9
  local wanted
  wanted=$(fingerprint)
  if [ "$(cat "$venv/.bootstrapped" 2>/dev/null)" = "$wanted" ]; then return 0; fi
  [ ! -e "$venv" ] || [ -w "$venv" ] || die "$venv belongs to another user" "rm -r $venv   (as its owner)"
  local start=$SECONDS
  "$venv/bin/python" -m pip --version >/dev/null 2>&1 || {
    say "making $venv with $("$python" -V)"
    make_venv
  }
  install_packages
  echo "$wanted" >"$venv/.bootstrapped"
  say "ready in $((SECONDS - start)) s"
}

main
