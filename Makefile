# Everything a contributor types. `make` alone lists it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
WORKERS ?= 3
.DEFAULT_GOAL := help

$(VENV)/.installed: requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -r requirements.lock
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps -e .
	@touch $@

help: ## list these commands
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/.installed ## install everything into .venv

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

test-fast: setup ## the quick tests, under a minute
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile -m "not slow and not system and not soak"

test-system: setup ## tests that need root or Debian packages (browser, strace, tmpfs)
	$(BIN)/python -m pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder -m "system and not soak"

soak: setup ## long proofs: many crashes, many hours
	$(BIN)/python -m pytest -m soak --timeout=14400

bench: setup ## speed of every stage on a million events, then what Dagster adds to a tiny hour
	$(BIN)/python bench/stages.py
	$(BIN)/python bench/carried.py
	$(BIN)/python bench/peer.py
	$(BIN)/python bench/redaction.py
	$(BIN)/python bench/landing.py
	$(BIN)/python bench/overhead.py
	$(BIN)/python bench/postgres.py
	$(BIN)/python bench/s3.py
	$(BIN)/python bench/alerts.py

bench-privacy: setup ## what redaction finds and leaves alone, by type, on 4 × 20,000 events, half with words and values of others
	-$(BIN)/python -m pip download --quiet --disable-pip-version-check --no-deps -d bench/.data presidio-evaluator==0.3.2
	$(BIN)/python bench/privacy.py

demo: setup ## a day of messy events becomes tables, objects and alerts
	$(BIN)/python -m obs_assets.demo

dev: setup ## Dagster's UI on the embedded servers
	$(BIN)/python scripts/dev.py

lock: ## write requirements.lock anew from pyproject.toml
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --no-header --no-emit-index-url --no-emit-find-links --extra dev pyproject.toml -o requirements.lock

clean: ## stop the embedded servers and remove .venv and .obs
	-$(BIN)/obs down
	-OBS_DATA_DIR=.obs/demo $(BIN)/obs down
	rm -rf $(VENV) .obs

.PHONY: help setup fmt check test test-fast test-system soak bench bench-privacy demo dev lock clean
