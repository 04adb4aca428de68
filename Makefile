# `make demo` and `make test` need Python 3.11 to 3.13 and nothing else: they make .venv themselves, each with the
# packages that it needs, and add to it when pyproject.toml or constraints.txt have changed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
WORKERS ?= 4

# An interpreter to use instead of the first that works.
PYTHON ?=
# One mark per set of packages, which the tests' set fulfils for both.
SUM := $(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
DEMO_SET := .venv/demo-$(SUM)
TEST_SET := .venv/test-$(SUM)
BIN := .venv/bin

.PHONY: help demo test lint types bench docs lock audit sbom clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{ printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(DEMO_SET):
	@PYTHON="$(PYTHON)" sh tools/set_up.sh '.[embedded]' "what the demo needs"
	@rm -f .venv/demo-* && touch $@

$(TEST_SET):
	@PYTHON="$(PYTHON)" sh tools/set_up.sh '.[dev]' "what the tests need"
	@rm -f .venv/demo-* .venv/test-* && touch $@ $(DEMO_SET)

demo: $(DEMO_SET) ## the whole thing at work on real parts: genuine, warned, tampered, proof
	@$(BIN)/iidq demo

# Work is stolen: by turns, one process was left with two minutes of slow tests (7:36 instead of 6:01 on two cores).
test: lint types ## lint, types and all tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

bench: $(TEST_SET) ## figures and ratios; FIGURES="drain latency" picks some, JSON=file writes them
	@$(BIN)/python -m benchmarks $(FIGURES) $(if $(JSON),--json $(JSON))

docs: $(TEST_SET) ## the site of docs/, in site/; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(TEST_SET)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/oxlint --quiet iidq/web/pages
	@$(BIN)/oxfmt --check iidq/web/pages >/dev/null || { $(BIN)/oxfmt --list-different iidq/web/pages; exit 1; }

types: $(TEST_SET)
	@$(BIN)/mypy

lock: $(TEST_SET) ## renew constraints.txt: the newest versions within the bounds of pyproject.toml
	@$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --all-extras --no-annotate \
		--no-emit-package iidq --custom-compile-command "make lock" pyproject.toml -o constraints.txt
	@git diff --stat -- constraints.txt

# The auditor and the writer of the bill run from uv's cache: no set of ours holds them.
audit: $(TEST_SET) ## known vulnerabilities of what iidq's users install (asks a public database)
	@mkdir -p dist
	@$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-annotate --no-header \
		-c constraints.txt --extra redis --extra otel pyproject.toml -o dist/requirements.txt
	@$(BIN)/uv tool run pip-audit --strict --no-deps --disable-pip -r dist/requirements.txt

sbom: $(TEST_SET) ## a bill of materials (CycloneDX) of what iidq's users install, in dist/
	@$(BIN)/uv venv --quiet --clear dist/venv
	@$(BIN)/uv pip install --quiet --python dist/venv/bin/python -c constraints.txt '.[redis,otel]'
	@$(BIN)/uv tool run --from 'cyclonedx-bom>=7,<8' cyclonedx-py environment \
		--pyproject pyproject.toml --output-reproducible --of JSON -o dist/iidq.cdx.json dist/venv/bin/python
	@rm -rf dist/venv
	@echo dist/iidq.cdx.json

clean: ## remove .venv and caches
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
