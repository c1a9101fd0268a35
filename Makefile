# Everything a fresh machine with Python 3.11, pip and make needs: each target does its own set-up.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# `make setup CUDA=12.6`; a variable CUDA of the shell often names a folder.
OTHER_CUDA := $(if $(filter command,$(origin CUDA)),$(CUDA))
STAMP := $(VENV)/.installed-$(shell cat requirements.lock pyproject.toml | sha256sum | cut -c1-16)$(OTHER_CUDA)

.DEFAULT_GOAL := help
.PHONY: help setup demo test lint lock

help:  ## this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*##/\t/' | expand -t 10

setup: $(STAMP)  ## .venv from the lock file, with uv; CUDA=12.6 for drivers before 580 (harness doctor says which)

$(STAMP): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip
	test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet "$$(grep -oE '^uv==[0-9.]+' requirements.lock)"
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	$(if $(OTHER_CUDA),HARNESS_CUDA=$(OTHER_CUDA) $(BIN)/python -m harness.runtimes.cuda requirements.lock)
	rm -f $(VENV)/.installed-*
	touch $@

demo: setup  ## GEAR against its baseline on digits: table, and report.html (about twelve minutes on two cores)
	$(BIN)/harness demo

test: setup  ## the tests and the golden cases (ten minutes; .ci/run has the slow ones and those with containers)
	OMP_NUM_THREADS=1 $(BIN)/pytest -q -n auto -m "not slow and not engine"

lint: setup  ## ruff and mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

lock: setup  ## resolve the lock files again from their inputs
	$(BIN)/uv pip compile pyproject.toml --all-extras $(COMPILE) -o requirements.lock
	$(BIN)/uv pip compile pyproject.toml --extra demo --extra track --extra coco $(COMPILE) -o docker/core/requirements.lock
	for input in benchmarks/*/requirements*.in docker/*/*.in; do $(BIN)/uv pip compile $$input $(COMPILE_SCORER) -o $${input%.in}.lock; done

COMPILE := --quiet --generate-hashes --universal --python-version 3.11 --no-emit-index-url --no-header --no-annotate
COMPILE_SCORER := --quiet --generate-hashes --python-version 3.11 --no-emit-index-url --no-header --no-annotate
