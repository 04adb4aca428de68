# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else. Each makes .venv with its packages, and adds to it
# when pyproject.toml or constraints.txt have changed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
WORKERS ?= 4

# An interpreter to use instead of the first that works.
PYTHON ?=
# One mark per set of packages; the tests' set includes the demo's.
SUM := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
DEMO_SET := .venv/demo-$(SUM)
TEST_SET := .venv/test-$(SUM)
BIN := .venv/bin

.PHONY: help demo test fast one fmt lint types house bench docs lock audit sbom clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{ printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(DEMO_SET):
	@PYTHON="$(PYTHON)" sh tools/set_up.sh '.[embedded]' "the demo's packages"
	@rm -f .venv/demo-* && touch $@

$(TEST_SET):
	@PYTHON="$(PYTHON)" sh tools/set_up.sh '.[dev]' "the tests' packages"
	@rm -f .venv/demo-* .venv/test-* && touch $@ $(DEMO_SET)

demo: $(DEMO_SET) ## all parts at work: a genuine, a warned and a tampered file, and a proof
	@$(BIN)/iidq demo

# Idle processes take tests from busy ones: 6:01 instead of 7:36 on two cores.
test: lint types ## lint, types and all tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

fast: lint ## lint and unit tests, with few examples per property: under a minute
	@IIDQ_EXAMPLES=10 $(BIN)/python -m pytest -n 2 --dist worksteal tests/unit

one: $(TEST_SET) ## one file, folder or test: make one TEST=tests/unit/queue
	@$(BIN)/python -m pytest -n 0 -v $(or $(TEST),$(error TEST=path, as in make one TEST=tests/unit/queue))

fmt: $(TEST_SET) ## format all code, mend findings that ruff can mend, renew the README's table of settings
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .
	@$(BIN)/oxfmt iidq/web/pages
	@$(BIN)/python -m tools.settings_table

house: $(TEST_SET) ## files, names, lines and pronouns of the code, counted; FILES=1 lists the files of one job
	@$(BIN)/python -m tools.house $(if $(FILES),--files)

bench: $(TEST_SET) ## figures and ratios; FIGURES="drain latency" picks some, JSON=file writes them
	@$(BIN)/python -m benchmarks $(FIGURES) $(if $(JSON),--json $(JSON))

docs: $(TEST_SET) ## the site of docs/ with a page of all promises, in site/; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(TEST_SET) ## ruff: findings and format
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/oxlint --quiet iidq/web/pages
	@$(BIN)/oxfmt --check iidq/web/pages >/dev/null || { $(BIN)/oxfmt --list-different iidq/web/pages; exit 1; }

types: $(TEST_SET) ## mypy, strict
	@$(BIN)/mypy

lock: $(TEST_SET) ## renew constraints.txt: the newest versions within the bounds of pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
		--no-emit-package iidq --custom-compile-command "make lock" pyproject.toml -o constraints.txt
	@git diff --stat -- constraints.txt

# The auditor and the writer of the bill run from uv's cache; they are in no set of packages.
audit: $(TEST_SET) ## known vulnerabilities of users' packages (asks a public database)
	@mkdir -p dist
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
		-c constraints.txt --extra redis --extra otel pyproject.toml -o dist/requirements.txt
	@$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip -r dist/requirements.txt

sbom: $(TEST_SET) ## a bill of materials (CycloneDX) of users' packages, in dist/
	@$(BIN)/uv venv --quiet --clear dist/venv
	@$(BIN)/uv pip install --quiet --python dist/venv/bin/python -c constraints.txt '.[redis,otel]'
	@$(BIN)/uv tool run --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment \
		--pyproject pyproject.toml --output-reproducible --of JSON -o dist/iidq.cdx.json dist/venv/bin/python
	@rm -rf dist/venv
	@echo dist/iidq.cdx.json

clean: ## remove .venv and caches
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
