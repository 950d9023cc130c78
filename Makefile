# make quickstart   the whole pipeline on real images, from nothing
# make test         every test
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALL := $(BIN)/python -m pip install -c constraints.txt

.DEFAULT_GOAL := help
.PHONY: help quickstart test check format bench constraints clean

help:  ## show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

quickstart: $(VENV)/.train  ## install what training needs, then run the whole pipeline on real images
	$(BIN)/kdedge run quickstart

test: $(VENV)/.dev  ## run every test
	$(BIN)/python -m pytest

check: $(VENV)/.dev  ## lint, format and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(VENV)/.dev  ## write the code in the project's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.dev  ## measure the training loop against plain PyTorch
	$(BIN)/python benchmarks/loop.py

constraints: $(VENV)/.dev  ## write down the versions that are installed
	{ sed '/^[^#]/,$$d' constraints.txt; \
	  $(BIN)/python -m pip freeze --exclude-editable | grep -Ev '^(nvidia|cuda|triton)| @ '; } > constraints.new
	mv constraints.new constraints.txt

clean:  ## remove what building and testing leave behind
	rm -rf build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "kdedge needs Python 3.11 or newer and " \
	  "$(PYTHON) is " + sys.version.split()[0] + "; name another one: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.train: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing kdedge with what training needs; the first time this downloads PyTorch"
	$(INSTALL) -e ".[train]"
	@touch $@

$(VENV)/.dev: pyproject.toml constraints.txt | $(BIN)/python
	@echo "installing kdedge with its development tools; the first time this downloads PyTorch"
	$(INSTALL) -e ".[dev]"
	@touch $@ $(VENV)/.train
