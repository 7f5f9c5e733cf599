# `make demo` and `make test` set up .venv by themselves; everything else builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types imports check clean help tables toys

help: ## List the targets
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "pushforward needs Python 3.11 or later, found " + sys.version.split()[0] + "; name another one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run the demonstration: demo/index.html
	$(BIN)/pushforward demo -o demo

test: $(STAMP) ## Run all tests and doctests
	$(BIN)/python -m pytest -q -n 2

lint: $(STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types strictly
	$(BIN)/mypy

imports: $(STAMP) ## Check that imports run downwards only
	$(BIN)/lint-imports

check: lint types imports test ## All of the above

clean: ## Remove what the targets made
	rm -rf $(VENV) demo build dist .mypy_cache .pytest_cache .ruff_cache
