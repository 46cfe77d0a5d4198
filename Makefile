# Each target works on a fresh clone: it sets up what it needs, once.
# The environment lives in .venv and is left alone until pyproject.toml, constraints.txt or a hash changes.

VENV := .venv
BIN := $(VENV)/bin
SHELL := /bin/sh
ENVIRONMENT := pyproject.toml constraints.txt Makefile $(wildcard infra/locked/*.txt)

# Packages by the hashes of their files, and then what has none: this project, and the torch that fits this machine
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check
LOCKED := $(INSTALL) --require-hashes --no-deps --no-build-isolation -c infra/locked/hashes.txt
OURS := $(INSTALL) --no-build-isolation -c constraints.txt

# The first Python on the PATH that is new enough, unless you name one: make setup PYTHON=python3.13
OLDEST := import sys; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$python -c '$(OLDEST)' 2>/dev/null && echo $$python && break; done)

.PHONY: setup run test test-all mutants lint imports format ui bench docs api locks
.DELETE_ON_ERROR:

# Recipes find reflux by its name, as a shell does after this; what they print is then to be typed as it is.
ON_PATH := PATH="$(CURDIR)/$(BIN):$$PATH"
ACTIVATE := @command -v reflux >/dev/null || \
	printf '\nOnce in each shell, to type reflux:  . $(BIN)/activate\n'

setup: $(VENV)/.dev
	$(ACTIVATE)

# make run ARGS="-S student.steps=3000"
run: $(VENV)/.run
	@$(ON_PATH) reflux run $(ARGS)
	$(ACTIVATE)

# make test ARGS="tests/unit -k gates"
test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder $(ARGS)

# All tests, including those marked long, which take minutes and gigabytes each; SHARD=1/4 takes every fourth file
test-all: $(VENV)/.dev
	$(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder -m "long or not long" $(ARGS) $(if $(SHARD), \
		$$(find tests -name 'test_*.py' | sort | awk 'BEGIN {split("$(SHARD)", s, "/")} NR % s[2] == s[1] % s[2]'))

# How many small changes of the code that decides its unit tests find
mutants: $(VENV)/.mutants
	$(BIN)/python -m benchmarks.mutants

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	@$(MAKE) --no-print-directory imports

# import-linter follows no links: it reads a copy of the package
imports: $(VENV)/.dev
	rm -rf $(VENV)/linted && cp -rLp infra/package $(VENV)/linted
	PYTHONPATH=$(VENV)/linted $(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# 15 to 25 minutes on two idle cores. make bench ARGS="--data path/to/parquet"
bench: $(VENV)/.bench
	$(BIN)/python -m benchmarks.throughput $(ARGS)
	$(BIN)/python -m benchmarks.show

# The documentation as a site, in .reflux/site; a warning is an error
docs: $(VENV)/.docs
	$(BIN)/python -m mkdocs build --strict --config-file infra/docs/mkdocs.yml

# After a change of reflux.api: its signatures, which a test compares, in infra/docs/api.txt
api: $(VENV)/.dev
	$(BIN)/python -m infra.docs.api

# After a change of constraints.txt or of what pyproject.toml asks for: the hashes, in infra/locked
locks: $(VENV)/.dev
	$(OURS) -e '.[locks]'
	$(BIN)/python -m infra.locks

ui: $(VENV)/.run
	$(BIN)/reflux ui

# A new pip first: with that of Python 3.11, all that follows takes half as long again
$(BIN)/python:
	@test -n '$(PYTHON)' && $(PYTHON) -c '$(OLDEST)' || { \
		echo 'Error: Reflux needs Python 3.11 or newer: install it, or name it with make PYTHON=/path/to/python3.' >&2; \
		exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --require-hashes -r infra/locked/tools.txt

# With what `reflux tune` needs, so that "how small can it be?" can follow the first run at once
$(VENV)/.run: $(ENVIRONMENT) | $(BIN)/python
	$(LOCKED) -r infra/locked/run.txt
	$(OURS) -e '.[tune]'
	@touch $@

$(VENV)/.dev: $(ENVIRONMENT) | $(BIN)/python
	$(LOCKED) -r infra/locked/dev.txt
	$(OURS) -e '.[dev]'
	@touch $@ $(VENV)/.run

$(VENV)/.docs: $(ENVIRONMENT) | $(BIN)/python
	$(OURS) -e '.[docs]'
	@touch $@ $(VENV)/.run

$(VENV)/.mutants: $(ENVIRONMENT) | $(BIN)/python
	$(OURS) -e '.[mutants]'
	@touch $@ $(VENV)/.dev $(VENV)/.run

$(VENV)/.bench: $(ENVIRONMENT) | $(BIN)/python
	$(OURS) -e '.[bench]'
	$(INSTALL) --no-deps --upgrade \
		--target $(VENV)/torchdistill-1.1.4 torchdistill==1.1.4  # the last that caches the teacher's outputs
	@touch $@
