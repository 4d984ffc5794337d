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
  step "yamllint" yamllint --strict playbooks inventories .pre-commit-config.yaml
  step "ansible-lint" ansible-lint --offline -q playbooks inventories
}

docs() {
  step "docs" scripts/docs.sh
}

# Unit and integration tests share the cores; acceptance tests start whole systems and measure time, so few at once.
tests() {
  local left_out
  left_out=$(scripts/system_tools.sh) || {
    failed+=("system tools")
    return
  }
  local select=()
  [ -z "$left_out" ] || select=(-m "$left_out")
  step "unit and integration tests" pytest -q -n 4 --dist loadgroup "${select[@]}" tests/unit tests/integration
  step "acceptance tests" pytest -q -n 2 --dist loadgroup "${select[@]}" --durations 8 tests/acceptance
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
