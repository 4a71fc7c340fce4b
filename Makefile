# Each target sets up what it needs in .venv; `make PYTHON=python3.12 ...` chooses the interpreter.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# A fresh clone has no .venv: the stamp is newer than what it was made from, or is made again.
STAMP := $(VENV)/.installed

.PHONY: demo test check bench notebooks clean

demo: $(STAMP)
	$(BIN)/emcatalog demo --out demo-out

test: $(STAMP)
	$(BIN)/python -m pytest -n 2

check: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/emcatalog validate

bench: $(STAMP)
	$(BIN)/python -m benchmarks.imports
	$(BIN)/python -m benchmarks.layout
	$(BIN)/python -m benchmarks.fetch
	$(BIN)/python -m benchmarks.entries
	$(BIN)/python -m benchmarks.loader
	$(BIN)/python -m benchmarks.tables

# Runs them in place: their pictures are part of the repository.
notebooks: $(STAMP)
	$(BIN)/python -m tests.test_notebooks

clean:
	rm -rf $(VENV) demo-out

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@
