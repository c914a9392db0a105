# `make demo` and `make test` need nothing but Python 3.11 or newer with its venv module.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint schema mutants proof clean

demo: $(VENV)/installed
	$(BIN)/cnnbp train configs/lenet5.yaml

test: $(VENV)/installed-test
	$(BIN)/python -m pytest

# The proof of the gradient check at full length: seeded faults; then random networks, also against PyTorch.
mutants: $(VENV)/installed-test
	$(BIN)/python tests/proof mutants

proof: mutants
	$(BIN)/python tests/proof networks
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python tests/proof torch

# The format of configs, which shell completion reads: after a change of a layer or another declaration.
schema: $(VENV)/installed
	$(BIN)/cnnbp schema | $(BIN)/python -m json.tool --compact --no-ensure-ascii - cnnbp_cli/config/schema.json

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(BIN)/python:
	$(PYTHON) -m venv $(VENV)

$(VENV)/installed: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/installed-test: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/installed

$(VENV)/installed-dev: $(BIN)/python pyproject.toml
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@ $(VENV)/installed $(VENV)/installed-test

clean:
	rm -rf $(VENV) build dist runs
