# HALO: every target makes its own virtual environment in .venv when there is none.
# Needs python3 (3.11 or newer) with its venv module, and the package index once.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTEST_ARGS ?=

.DEFAULT_GOAL := help
.PHONY: help demo test test-hosts bench check format clean

help:
	@echo "make demo    a cluster on this machine loses a host and gets it back"
	@echo "make test    all tests"
	@echo "make test-hosts  as root: hosts that lose power, BMCs, real resource agents (4 min)"
	@echo "make bench   every figure that loopback can show, beside its bar (10 min, a quiet machine)"
	@echo "make check   format, lint and types"
	@echo "make format  put the code into its format"
	@echo "make clean   remove what the other targets made"

$(STAMP): pyproject.toml
	@echo "making the virtual environment $(VENV) ..."
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@

demo: $(STAMP)
	@$(BIN)/python demo/demo.py

bench: $(STAMP)
	@$(BIN)/python -m benchmarks

# Mostly waiting, so more workers than there are cores.
test: $(STAMP)
	@$(BIN)/pytest -q -n 4 $(PYTEST_ARGS)

# The same tests of real hosts that `test` runs as root; a missing part fails here.
test-hosts: $(STAMP)
	@HALO_TEST_REQUIRE_PARTS=1 $(BIN)/pytest -q -n 4 $(PYTEST_ARGS) tests/hosts

check: $(STAMP)
	@$(BIN)/ruff format --quiet --check .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy --no-error-summary
	@echo "check: format, lint and types are in order"

format: $(STAMP)
	@$(BIN)/ruff format --quiet .
	@$(BIN)/ruff check --quiet --fix .

clean:
	@rm -rf $(VENV) build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	@find tests/test_output -mindepth 1 ! -name .gitkeep -delete
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
