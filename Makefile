# `make demo` and `make test` need Python 3.11 or later and pip, nothing else.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin

.PHONY: install demo test lint rehearsal paper-yoto paper-markermap paper-agl clean

install: $(VENV)/.installed

# Exact versions that were tested; torch is pinned so that its CPU wheel is taken where offered.
$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

demo: install
	$(BIN)/panelbench run --suite demo

test: install lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

# The YOTO paper from end to end on small synthetic stand-ins, into build/rehearsal.
rehearsal: install
	$(BIN)/python -m tests.rehearsal

# Says first what it downloads, about how long it takes and what is missing.
paper-yoto paper-markermap paper-agl: paper-%: install
	$(BIN)/panelbench run --paper $*

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

clean:
	rm -rf $(VENV) build dist *.egg-info
