# `make demo` and `make test` start from nothing: each makes .venv and installs into it if needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install --quiet --quiet -c constraints.txt
FORCE ?=
SOURCES := $(shell find src -type f -not -path '*/__pycache__/*' -not -path '*.egg-info/*') pyproject.toml constraints.txt

.PHONY: demo test torture lint types bench clean

demo: $(VENV)/.installed
	@BIN=$(BIN) FORCE=$(FORCE) sh bench/demo.sh

# Two processes of one thread each: most tests are many small steps.
test: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

# Long campaigns of faults on the files of a run; docs/reliability.md has their figures.
torture: $(VENV)/.dev
	OMP_NUM_THREADS=1 $(BIN)/python -m tests.faults.torture

lint: $(VENV)/.dev
	$(BIN)/ruff check src tests bench
	$(BIN)/ruff format --check src tests bench

types: $(VENV)/.dev
	$(BIN)/mypy

bench: $(VENV)/.installed
	$(BIN)/python bench/throughput.py

# The package is installed, not linked: what runs is what a wheel carries.
$(VENV)/.installed: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(PIP) '.[all]'
	rm -rf build
	touch $@

$(VENV)/.dev: $(VENV)/.installed
	$(PIP) pytest pytest-xdist hypothesis scikit-image playwright mypy ruff types-PyYAML
	touch $@

clean:
	rm -rf $(VENV) build .mypy_cache .ruff_cache
