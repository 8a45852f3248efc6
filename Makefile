# One vocabulary of tasks, for people and for CI.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --constraint requirements.lock
WORKERS ?= 2

.DEFAULT_GOAL := help
.PHONY: help install dev demo test quick lint types format lock schema clean

help:  ## list the tasks
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

install: $(VENV)/pipeline  ## make .venv with the pipeline
dev: $(VENV)/dev  ## the same with the development tools

$(VENV)/pipeline: pyproject.toml requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "$$($(PYTHON) --version 2>&1) found; Stillroom needs Python 3.11 or newer: make PYTHON=python3.11" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PIP) --editable '.[pipeline]'
	@touch $@

$(VENV)/dev: $(VENV)/pipeline
	$(PIP) --editable '.[pipeline,privacy,ray,dev]'
	@touch $@

demo: install  ## run the whole pipeline on real data with a real teacher
	$(BIN)/stillroom run

test: dev lint types  ## everything that decides what lands
	$(BIN)/python -m pytest --numprocesses $(WORKERS) --dist loadgroup -m 'not serial'
	$(BIN)/python -m pytest -m serial

quick: dev  ## the tests that take seconds
	$(BIN)/python -m pytest --numprocesses $(WORKERS) -m 'not serial and not slow'

lint: dev  ## style, format and the layer rule
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	PYTHONPATH=. $(BIN)/lint-imports

types: dev  ## strict types
	$(BIN)/mypy

format: dev  ## apply style and format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

schema: install  ## write the JSON schema of params.yaml
	$(BIN)/stillroom schema > docs/params.schema.json

lock:  ## compile requirements.lock anew (needs uv)
	uv pip compile pyproject.toml --extra pipeline --extra privacy --extra ray --extra dev --python-version 3.11 --no-annotate --no-header \
	  | sed -E 's/^(torch==[0-9.]+)\+.*/\1/' > requirements.new
	{ sed -n '/^#/p' requirements.lock; cat requirements.new; } > requirements.lock.new
	rm requirements.new && mv requirements.lock.new requirements.lock

clean:  ## remove what runs and tools leave behind, not the environment
	rm -rf .stillroom artifacts reports release sources/data dvc.lock .pytest_cache .mypy_cache .ruff_cache
