# Everything runs in a virtual environment of its own; Python 3.11 or later and make are all that a machine needs.
# pip is configured by its own files and PIP_* variables, nothing here overrides them.

SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

# The newest that runs: a version manager's shim can stand on PATH for a version that is not active.
SUITABLE := import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))
PYTHON ?= $(shell for name in python3.14 python3.13 python3.12 python3.11 python3; do \
	for found in $$(type -aP $$name); do \
	$$found -c '$(SUITABLE)' >/dev/null 2>&1 && echo $$found && exit; done; done)

ROWS ?= 100000
SEED ?= 1
AWKWARD ?= 1.0
DEMO_ARGS ?= --rows $(ROWS) --seed $(SEED) --awkward $(AWKWARD)
PYTEST_ARGS ?=
MINUTES ?= 5
# Twice a small machine's processors: many tests wait, for a lock, for a lease, for a worker.
WORKERS ?= 4
# A seed is drawn where none is given on the command line; that of the demo is another's.
STORM_ARGS ?= --minutes $(MINUTES) $(if $(filter command line,$(origin SEED)),--seed $(SEED)) $(if $(PG_BIN),--pg-bin $(PG_BIN))

# The tests start hundreds of processes, and pytest rewrites every module: without the cache each would compile it all.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test check chaos storm bench clean
.DELETE_ON_ERROR:

demo: $(READY)
	$(BIN)/spine-migrate demo $(DEMO_ARGS)

# A short slice of the chaos tests is part of it; `make chaos` runs them alone, in full, and tells its figures. Tests that
# need a browser are left to .ci/run.
test: $(READY)
	$(BIN)/pytest -n $(WORKERS) --dist worksteal -m "not browser" $(PYTEST_ARGS)

chaos: $(READY)
	SPINE_CHAOS_FULL=1 $(BIN)/pytest -m chaos -s $(PYTEST_ARGS)

# One long run through every step of a live migration; it prints its seed. PG_BIN: the programs of another PostgreSQL.
storm: $(READY)
	$(BIN)/python -m tests.chaos.storm $(STORM_ARGS)

check: $(READY)
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/spine-migrate mapping docs --check
	$(BIN)/python -m tests.behaviour_table --check

bench: $(READY)
	$(BIN)/python -m benchmarks

clean:
	rm -rf $(VENV) build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

# Without build isolation, so that the build backend is held by constraints.txt too.
$(READY): pyproject.toml constraints.txt
	@rm -rf $(VENV)
	@python="$(PYTHON)"; test -n "$$python" || { \
	echo "No Python 3.11 or later with venv is on PATH; name one: make PYTHON=/path/to/python3" >&2; exit 2; }; \
	echo "Creating $(VENV) with $$python"; "$$python" -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --no-build-isolation --editable '.[embedded,dev]'
	@touch $@
