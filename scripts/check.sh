#!/usr/bin/env bash
# The steps of `make test` and `make check`: check.sh lint|docs|all. Every step runs, then the verdict.
set -uo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH:/usr/sbin:/sbin" ANSIBLE_HOME=${ANSIBLE_HOME:-$PWD/.cache/ansible}
failed=()

step() { # name command...
  scripts/step.sh "$@" || failed+=("$1")
}

lint() {
  step "ruff format" ruff format --check -q .
  step "ruff" ruff check -q .
  step "mypy --strict" mypy --no-error-summary
  step "imports" lint-imports --no-logo
  step "yamllint" yamllint --strict playbooks inventories monitoring tests/monitoring .pre-commit-config.yaml
  step "ansible-lint" ansible-lint --offline -q playbooks inventories
}

docs() {
  step "docs" scripts/docs.sh
}

# Unit tests take all cores. What starts real processes gets fewer at once, and the demo, which measures its own
# rate, has the machine to itself.
tests() {
  local left_out
  left_out=$(scripts/system_tools.sh) || {
    failed+=("system tools")
    return
  }
  local pytest=(pytest -q --durations 5)
  [ -z "$left_out" ] || pytest+=(-m "$left_out")
  step "unit tests" "${pytest[@]}" -n 3 tests/unit tests/monitoring
  step "integration tests" "${pytest[@]}" -n 2 tests/integration
  step "contract tests" "${pytest[@]}" -n 2 tests/contract
  step "documentation tests" "${pytest[@]}" -n 2 --maxschedchunk 1 tests/docs
  step "acceptance tests" "${pytest[@]}" -n 2 --ignore tests/acceptance/demo tests/acceptance
  step "demo" "${pytest[@]}" -n 0 tests/acceptance/demo
}

case ${1:-all} in
lint) lint ;;
docs) docs ;;
all)
  lint
  docs
  tests
  ;;
*)
  echo "usage: check.sh lint|docs|all" >&2
  exit 2
  ;;
esac

if [ ${#failed[@]} -gt 0 ]; then
  echo "failed: ${failed[*]}" >&2
  exit 1
fi
