# make help explains every target.
PYTHON ?= python3
VENV := .venv
RUN := $(VENV)/bin/python
JOBS ?= $(shell nproc)
# a process a core, each with one thread; a file's tests stay together, for what they share
TEST := OMP_NUM_THREADS=1 $(RUN) -m pytest -n $(JOBS) --dist loadfile

.DEFAULT_GOAL := help
.PHONY: help install demo test test-fast test-thorough lint format wheel-check clean

help: ## this text
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-12s %s\n", $$1, $$2}'

install: $(VENV)/installed ## .venv with everything that the demo and the tests need (about 6 GB: torch brings CUDA)

$(VENV)/installed: pyproject.toml
	@test -x $(RUN) || $(PYTHON) -m venv $(VENV)
	$(RUN) -m pip install --quiet --disable-pip-version-check --editable '.[test,digits]'
	@touch $@
	@echo "installed in $(VENV)"

demo: install ## two sweeps to their tables: real digits, and synthetic street scenes; about 10 minutes on 2 cores
	@$(RUN) -m mtlbench.demo --jobs $(JOBS)

test: install ## the whole test suite
	$(TEST)

test-fast: install ## the tests without training, whole commands and several processes: under two minutes
	$(TEST) -m "not slow"

test-thorough: install ## the small variant of every paper's sweep, of which the test suite runs one a paper: half an hour
	$(TEST) -m thorough

lint: install ## ruff's checks and formatting
	$(RUN) -m ruff check
	$(RUN) -m ruff format --check

format: install ## lets ruff mend what it can
	$(RUN) -m ruff check --fix
	$(RUN) -m ruff format

wheel-check: install ## builds the wheel, installs it apart and trains from another folder
	$(RUN) tests/check_wheel.py

clean: ## removes .venv and caches; runs/, data/ and results/ stay
	rm -rf $(VENV) .pytest_cache .ruff_cache .hypothesis dist build
