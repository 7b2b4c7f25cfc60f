# `make` lists the targets. The first target that needs it creates .venv and installs the pinned versions;
# from then on nothing is installed again until pyproject.toml or constraints.txt changes.

PYTHON      ?= python3
PYTEST_ARGS ?=
XDIST       ?= -n 2 --dist worksteal
TRAIN_ARGS  ?= env=LunarLander-v3 eval.episodes=100

VENV    := .venv
BIN     := $(VENV)/bin
INSTALL := $(BIN)/python .ci/install.py -c constraints.txt
RUNTIME := $(VENV)/.stamp-runtime
DEV     := $(VENV)/.stamp-dev

# The pins hold for build backends too: the first variable says so to pip < 25.3, the second to later ones.
export PIP_CONSTRAINT       := constraints.txt
export PIP_BUILD_CONSTRAINT := constraints.txt
export PIP_DISABLE_PIP_VERSION_CHECK := 1

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help train test test-slow lint types docs wheel-proof clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo '  variables: PYTHON=$(PYTHON)  TRAIN_ARGS="$(TRAIN_ARGS)"  PYTEST_ARGS="-k gae"'

train: $(RUNTIME)  ## install what is needed, then train LunarLander and evaluate it over 100 episodes
	$(BIN)/ppo-train $(TRAIN_ARGS)
	@echo
	@echo 'Next, in this folder:'
	@echo '  . .venv/bin/activate             # the commands below, and ppo-train, by their names'
	@echo '  ppo-report outputs               # table and learning curve: outputs/report/report.html'
	@last=$$(ls -t outputs/*/*/checkpoints/last.pt outputs/sweeps/*/*/checkpoints/last.pt 2>/dev/null | head -n 1); \
	  [ -z "$$last" ] || echo "  ppo-eval '$${last%/checkpoints/last.pt}' --video films"
	@echo '  tensorboard --logdir outputs     # every curve, at http://localhost:6006, until Ctrl-C'

# One thread a worker: two workers with a full thread pool each would fight for the same cores.
test: $(DEV)  ## run the fast tests
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest $(XDIST) $(PYTEST_ARGS)

test-slow: $(DEV)  ## run the tests that train for minutes
	OMP_NUM_THREADS=$${OMP_NUM_THREADS:-1} $(BIN)/pytest -m slow $(XDIST) $(PYTEST_ARGS)

lint: $(DEV)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(DEV)  ## mypy, strict
	$(BIN)/mypy

docs: $(DEV)  ## build the documentation into site/; any warning is an error
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel-proof: $(DEV)  ## build sdist and wheel, install the wheel elsewhere and train with it
	.ci/wheel-proof

clean:  ## remove .venv, caches and build products; outputs/ stays
	rm -rf $(VENV) build dist site *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './outputs/*' -prune -exec rm -rf {} +

$(VENV)/.stamp-python:
	@command -v "$(PYTHON)" >/dev/null || \
	  { echo "make: no '$(PYTHON)' here; name a Python 3.10 or newer: make PYTHON=python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "make: ppo-cli needs Python 3.10 or newer, and '$(PYTHON)' is $$("$(PYTHON)" --version 2>&1); name another: make PYTHON=python3.11 ..." >&2; exit 1; }
	@"$(PYTHON)" -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "make: '$(PYTHON)' has no venv module (ensurepip missing); on Debian and Ubuntu install python3-venv" >&2; exit 1; }
	@echo "making $(VENV) with $$("$(PYTHON)" --version 2>&1)"
	@"$(PYTHON)" -m venv $(VENV)
	@touch $@

$(RUNTIME): pyproject.toml constraints.txt $(VENV)/.stamp-python
	@echo "installing ppo-cli, with figures and films, into $(VENV) (once; PyTorch is the largest part)"
	@$(INSTALL) -e ".[report,video]"
	@touch $@

$(DEV): pyproject.toml constraints.txt $(VENV)/.stamp-python
	@echo "installing ppo-cli and its development tools into $(VENV) (once; PyTorch is the largest part)"
	@$(INSTALL) -e ".[dev]"
	@touch $(RUNTIME) $@
