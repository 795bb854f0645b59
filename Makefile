# Every target sets up what it needs in .venv, once. Only python3 (3.11 or later) and make must be there.
#
# PyTorch goes in first, by itself, so that nothing else pulls in another build of it. For the build without
# CUDA from PyTorch's own index:
#   make test TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
TORCH ?= torch==2.13.0
VENV ?= .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

export PIP_DISABLE_PIP_VERSION_CHECK = 1

.PHONY: help setup demo test lint format bench wheelhouse clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## Make .venv with everything that development needs

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Vesalius needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another one: make PYTHON=python3.12")'
	$(PYTHON) -m venv $(VENV)

$(READY): pyproject.toml | $(BIN)/pip
	$(BIN)/pip install --quiet $(TORCH)
	$(BIN)/pip install --quiet -e '.[dev]'
	@touch $@

demo: $(READY) ## Run the whole chain on a virtual cohort (a few minutes) into demo/
	$(BIN)/vesalius demo --to demo

test: $(READY) ## Run every test, the documents' code blocks included
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist loadfile

lint: $(READY) ## Check style, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(READY) ## Bring all files into the house's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(READY) ## Measure start-up, and preparation and prediction side by side with nnU-Net
	$(BIN)/python bench/startup.py
	$(BIN)/python bench/nnunet_side_by_side.py

wheelhouse: $(BIN)/pip ## Collect every wheel of the base install for a machine without a network
	rm -rf wheelhouse
	$(BIN)/pip wheel --quiet --wheel-dir wheelhouse .
	@du -sh wheelhouse
	@echo 'There: pip install --no-index --find-links wheelhouse vesalius'

clean: ## Remove .venv, caches and what the targets above made
	rm -rf $(VENV) wheelhouse demo build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
