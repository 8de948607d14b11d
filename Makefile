# genrec: `make` lists what there is. Everything runs in .venv, which is built when it is missing and updated when
# pyproject.toml or constraints.txt change. Overrides of the config are passed on: make train ARGS="model=rqvae trainer=rqvae"

PYTHON ?= python3
VENV ?= .venv
ARGS ?=
STUDY ?=
WORKERS ?= 2
N ?= 20000
SEED ?= 1

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt
# Overrides of the config may also stand alone: make train model=gat data=lastfm
OVERRIDES := $(strip $(foreach name,$(filter-out PYTHON VENV ARGS STUDY WORKERS N SEED,$(.VARIABLES)),$(if $(filter command,$(origin $(name))),'$(name)=$($(name))')))
RUN := $(BIN)/python -m genrec.run $(OVERRIDES)
PYTEST := $(BIN)/python -m pytest -n $(WORKERS) --dist worksteal
IS_NEW_ENOUGH := import sys; sys.exit(sys.version_info < (3, 11))

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup train train-simple train-improved sweep schedules test test-slow fuzz check format bench reproduce clean

help: ## list the targets
	@grep -E '^[a-z-]+:.*## ' $(firstword $(MAKEFILE_LIST)) | sed -E 's/^([a-z-]+):.*## (.*)/  \1|\2/' | awk -F'|' '{ printf "%-17s %s\n", $$1, $$2 }'
	@printf '\n  variables         ARGS="model=tiger seed=1" (passed on, as is model=gat alone), PYTHON=python3.12, WORKERS=4 (of the tests)\n'

setup: $(VENV)/.installed-dev ## build or update .venv with everything, the development tools included

train: $(VENV)/.installed ## the default run: data, semantic IDs, TIGER, test metrics beside the baselines
	$(RUN) $(ARGS)

train-simple: $(VENV)/.installed ## train for a fixed number of epochs (trainer=simple)
	$(RUN) trainer=simple $(ARGS)

train-improved: $(VENV)/.installed ## validate, stop early, lower the learning rate, test the best (trainer=advanced)
	$(RUN) trainer=advanced $(ARGS)

sweep: $(VENV)/.installed ## a grid of runs and a table of them (sweep=lr_patience; another: ARGS="sweep=NAME")
	$(RUN) -m $(if $(findstring sweep=,$(ARGS) $(OVERRIDES)),,sweep=lr_patience) $(ARGS)

schedules: $(VENV)/.installed ## draw every learning-rate schedule (docs/schedules.svg; ARGS="--total-steps 5000 --output mine.svg")
	$(BIN)/python -m genrec.schedule_chart --output docs/schedules.svg $(ARGS)

test: $(VENV)/.installed-dev ## every test but the slow ones
	$(PYTEST) -m "not slow" $(ARGS)

test-slow: $(VENV)/.installed-dev ## the slow tests: real trainings, a wheel in an empty environment
	$(PYTEST) -m slow $(ARGS)

fuzz: $(VENV)/.installed-dev ## nonsense in every place: only sentences may come out (N=20000 SEED=1; ARGS="values artifacts")
	$(BIN)/python -m tests.fuzz.command --cases $(N) --seed $(SEED) $(ARGS)

check: $(VENV)/.installed-dev ## ruff, pyright and the import order; changes nothing
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python -m pyright
	$(BIN)/lint-imports

format: $(VENV)/.installed-dev ## let ruff fix and format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(VENV)/.installed-bench ## speed and memory beside other libraries (--quick; ARGS="--only training decoding")
	$(BIN)/python -m experiments.speed $(ARGS)

reproduce: $(VENV)/.installed ## train a study again and say which figures moved (STUDY=lastfm; ARGS="--only bpr_mf --seeds 1")
	$(BIN)/python -m experiments.reproduce $(STUDY) $(ARGS)

clean: ## remove .venv, caches and builds; outputs/ and data/ stay
	rm -rf $(VENV) build dist .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find genrec tests experiments -name __pycache__ -type d -prune -exec rm -rf {} +

# An environment that cannot run pip, moved with its folder or belonging to an older Python is built anew.
$(BIN)/python:
	@command -v $(PYTHON) > /dev/null || { echo "make: no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -c '$(IS_NEW_ENOUGH)' || { echo "make: genrec needs Python 3.11 or newer, but '$(PYTHON)' is $$($(PYTHON) --version 2>&1). Name a newer one: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	$(PYTHON) -m venv --clear $(VENV)

$(VENV)/.installed: pyproject.toml constraints.txt
	@$(BIN)/python -c '$(IS_NEW_ENOUGH)' 2> /dev/null && $(BIN)/python -m pip --version > /dev/null 2>&1 || rm -rf $(VENV)
	@$(MAKE) --silent $(BIN)/python
	$(PIP) torch==2.13.0
	$(PIP) -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	$(PIP) -e ".[dev]"
	@touch $@

# RecBole's own requirements name versions that no longer install beside the others; what it needs is in the extra.
$(VENV)/.installed-bench: $(VENV)/.installed
	$(PIP) -e ".[bench]" torch==2.13.0
	$(PIP) --no-deps recbole==1.2.1
	@touch $@
