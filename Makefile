# Everything that people and CI run. Each target installs what it needs (scripts/bootstrap.sh makes .venv).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
bin := .venv/bin
STEP := scripts/step.sh
ARGS ?=

.PHONY: help
help: ## This list
	@awk -F ':.*## ' '/^[a-z%-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: venv
venv: ## .venv with the locked packages
	@scripts/bootstrap.sh

.PHONY: demo
demo: venv ## The main job: a fleet scales itself on this machine, under real load (ARGS="--json")
	@$(bin)/secbeat demo $(ARGS)

.PHONY: check
check: venv ## Lint and fast tests, under a minute once caches are warm
	@scripts/check.sh lint
	@$(STEP) "fast tests" $(bin)/pytest -q -n 4 -m "not slow" tests/unit $(ARGS)

.PHONY: test
test: venv ## Everything that CI runs
	@scripts/check.sh all

.PHONY: bench
bench: venv ## All benches, each with its reference in the same run
	@$(bin)/python -m bench

.PHONY: bench-%
bench-%: venv
	@$(bin)/python -m bench $*

.PHONY: qualify
qualify: venv ## The long forms: repeats, benches, soak; results in docs/evidence/
	@scripts/qualify.sh

.PHONY: docs
docs: venv ## The documentation, as HTML in docs/_build/html
	@scripts/check.sh docs

.PHONY: format
format: venv ## Format the code
	@$(bin)/ruff format .
	@$(bin)/ruff check --fix .

.PHONY: lock
lock: venv ## Resolve pyproject.toml into requirements/*.lock (UPGRADE=1 takes the newest)
	@scripts/lock.sh

.PHONY: clean
clean: ## Remove what the other targets made
	rm -rf .venv .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis docs/_build build dist
