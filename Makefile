# securefl: make demo. Everything happens in .venv; nothing else on the machine is changed.
PYTHON ?= python3
# The small CPU build of torch; TORCH_INDEX= (empty) takes the default build instead, on Linux gigabytes of CUDA.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
ARGS ?=
MARK ?= not slow and not chaos

BIN := .venv/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt
STAMP := .venv/installed

.DEFAULT_GOAL := help
.PHONY: demo test check bench peers clean help

demo: $(STAMP)  ## Five hospitals train a diagnosis model together (ARGS="--protection ckks")
	@$(BIN)/securefl demo $(ARGS)

test: $(STAMP)  ## The fast tests (ARGS="-k ledger"; MARK=slow for the others)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m "$(MARK)" -n auto --maxprocesses 4 --dist worksteal $(ARGS)

check: $(STAMP)  ## Format, lint and types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy --strict securefl protocols

bench: $(STAMP)  ## Benchmarks (ARGS="round --json rows.json"; default: round --quick)
	$(BIN)/python -m benchmarks $(or $(ARGS),round --quick)

peers: $(STAMP)  ## What benchmarks compare with, in an environment of its own (.venv-peers)
	$(BIN)/python -m benchmarks.peers

clean:  ## Remove what was built and cached; runs, ledgers and data stay
	rm -rf .venv .venv-peers build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

help:  ## This list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# A stamp newer than what it was made from means: nothing to install, start at once. torch comes first, pinned and alone:
# its index is asked for nothing else, and where that cannot be reached pip goes on with the ones it is configured for.
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if (3, 11) <= v <= (3, 13) else \
	  "securefl needs Python 3.11 to 3.13, and $(PYTHON) is %d.%d: call make PYTHON=python3.11 ..." % v)'
	$(PYTHON) -m venv .venv
	$(PIP) --no-deps --retries 1 $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) torch
	$(PIP) --editable '.[test,dev]'
	@touch $@
