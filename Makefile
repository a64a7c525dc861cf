# Everything a contributor types. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
LOCK = $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url \
	--no-emit-find-links pyproject.toml
.DEFAULT_GOAL := help

# What runs the product, then what checks and tests need besides: each installed once, and again when its lock changes.
$(VENV)/.installed: requirements.lock pyproject.toml scripts/install.py
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "$(PYTHON) must be Python 3.11 or newer: name another, for example make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/python scripts/install.py requirements.lock
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed requirements-dev.lock
	@$(BIN)/python scripts/install.py requirements-dev.lock
	@touch $@

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## install what runs the product into .venv

setup: $(VENV)/.installed-dev ## install everything into .venv, developers' tools too

fmt: setup ## format the code
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

check: setup ## format, lint, types, architecture, spelling: what CI checks
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/codespell

test: setup ## the whole suite on a real PostgreSQL and a real S3 server
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not system and not soak"

# Loading Dagster takes 3 s of processor time in each worker: the tests that load it are not among the quick ones.
test-fast: setup ## the quick tests, under a minute
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not system and not soak" \
		$(addprefix --ignore=obs_assets_tests/,components recipes system soak)

test-system: setup ## tests that need root or Debian packages (browser, strace, tmpfs)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "system and not soak"

test-pythons: setup ## the redaction tests on the oldest and the newest supported Python (needs apt-get)
	scripts/other_pythons.sh

soak: setup ## long proofs: many crashes, many hours
	$(BIN)/python -m pytest -m soak --timeout=14400 --hypothesis-profile=default

bench: setup ## speed of every stage on a million events, then what Dagster adds to a tiny hour
	$(BIN)/python bench/stages.py
	$(BIN)/python bench/carried.py
	$(BIN)/python bench/peer.py
	$(BIN)/python bench/redaction.py
	$(BIN)/python bench/landing.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/postgres.py
	$(BIN)/python bench/s3.py
	$(BIN)/python bench/destinations.py
	$(BIN)/python bench/receiving.py
	$(BIN)/python bench/alerts.py

bench-privacy: setup ## what redaction finds and leaves alone, by type, on 4 × 20,000 events; PUBLIC=DIR: suites of others too
	-$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps -d bench/.data presidio-evaluator==0.3.2
	$(BIN)/python bench/privacy.py $(if $(PUBLIC),--public $(PUBLIC))

demo: install ## a day of messy events becomes tables, objects and alerts
	$(BIN)/python -m obs_assets.demo

dev: install ## Dagster's UI on the embedded servers
	$(BIN)/obs dev

lock: setup ## write both lock files anew from pyproject.toml
	$(LOCK) -o requirements.lock
	$(LOCK) --extra dev -c requirements.lock -o requirements-dev.lock

clean: ## stop the embedded servers and remove .venv and .obs
	-$(BIN)/obs down
	-OBS_DATA_DIR=.obs/demo $(BIN)/obs down
	rm -rf $(VENV) .obs

.PHONY: help install setup fmt check test test-fast test-system test-pythons soak bench bench-privacy demo dev lock clean
