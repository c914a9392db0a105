# `make demo` and `make test` need nothing but Python 3.11 or newer with its venv module.
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test test-all lint smoke sdist mutants proof faults rules crash fuzz schema man lesson screenshots clean

demo: $(VENV)/installed
	$(BIN)/cnnbp train configs/lenet5.yaml

# What a change should pass before it is committed: every law, without the long campaigns.
test: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto

# Everything, the long campaigns too; what needs an extra is skipped where that is not installed.
test-all: $(VENV)/installed-test
	$(BIN)/python -m pytest -n auto -m ""

# The main commands with the lowest versions of all dependencies that pyproject.toml allows, and with the newest.
smoke:
	$(PYTHON) tests/smoke.py lowest
	$(PYTHON) tests/smoke.py newest

# The source distribution holds all that its own tests need.
sdist: $(VENV)/installed-dev
	$(PYTHON) tests/sdist.py $(BIN)/python

# The proof of the gradient check at full length: seeded faults; then random networks, also against PyTorch.
mutants: $(VENV)/installed-test
	$(BIN)/python tests/proof mutants

proof: mutants
	$(BIN)/python tests/proof networks
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python tests/proof torch

# The figures of the diagnosis: what it finds in broken configs, and says about sound ones.
faults: $(VENV)/installed-test
	$(BIN)/python tests/diagnosis_campaign --confirm

# The page of every rule in docs/rules, with an example of what it finds.
rules: $(VENV)/installed-test
	$(BIN)/python tests/diagnosis_campaign --write-pages

# Real runs, killed 200 times in all, a part of them in the middle of a checkpoint.
crash: $(VENV)/installed-test
	CRASH_KILLS=100 $(BIN)/python -m pytest tests/parallel/test_kills.py

# Hostile input at full length: every kind of file and option, a hundred thousand times.
fuzz: $(VENV)/installed-test
	$(BIN)/python -m pip install --quiet --editable '.[images]'
	$(BIN)/python tests/fuzz

# The format of configs, which shell completion reads: after a change of a layer or another declaration.
schema: $(VENV)/installed
	$(BIN)/cnnbp schema | $(BIN)/python -m json.tool --compact --no-ensure-ascii - cnnbp_cli/config/schema.json

# The manual page that the package installs: after a change of a command or an option.
man: $(VENV)/installed
	$(BIN)/cnnbp docs --man > man/cnnbp.1

# The lesson of docs/lesson.md as a page, with the trace of the toy beside it: open build/lesson/index.html.
lesson: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	$(BIN)/python docs/lesson_page.py build/lesson

# The README's pictures of the page, where Chromium is installed.
screenshots: $(VENV)/installed
	$(BIN)/python -m pip install --quiet --editable '.[browser,images,plot]'
	$(BIN)/python docs/screenshots.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	@if command -v npm >/dev/null; then $(MAKE) --no-print-directory lint-page; \
	else echo "the trace page's JavaScript was not checked: npm is missing"; fi

.PHONY: lint-page
lint-page: tests/page/node_modules
	npm --prefix tests/page run --silent lint

tests/page/node_modules: tests/page/package-lock.json
	npm --prefix tests/page ci --silent --no-audit --no-fund
	touch $@

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
