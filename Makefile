# The two commands of the README, and the docs. All share one .venv and may be run in any order.
# Another interpreter than python3: make quickstart PYTHON=python3.12

PYTHON ?= python3
BIN := .venv/bin
INSTALL := $(BIN)/python -m pip install --disable-pip-version-check --constraint constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test docs

help: ## Show the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

quickstart: .venv/.core ## Install, train the grid `quick` on the embedded dataset, show its table
	$(BIN)/bslbench train --grid quick
	$(BIN)/bslbench report --grid quick

test: .venv/.dev ## Install with the dev extra, run the checks and the tests
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/pytest -n 2

docs: .venv/.docs ## Build the documentation as a site, in site/
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet

# Stamps: an installation is repeated only when what it was made from has changed. The package is
# installed editable, so a change of the code never needs one.
.venv/.core: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable .
	@touch $@

.venv/.dev: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable '.[dev]'
	@touch .venv/.core .venv/.docs $@

.venv/.docs: pyproject.toml constraints.txt | $(BIN)/pip
	$(INSTALL) --editable '.[docs]'
	@touch .venv/.core $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo "bslbench needs Python 3.11 or newer, and $(PYTHON) is not:" \
			"name another one, such as: make quickstart PYTHON=python3.11" >&2; \
		exit 1; \
	}
	$(PYTHON) -m venv .venv
