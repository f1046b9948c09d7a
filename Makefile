# Two commands: `make demo` and `make test`. Both need Python 3.11 or 3.12, and root or a running Docker engine.
.DEFAULT_GOAL := help
.PHONY: help demo demo-env demo-stop test test-slow test-engines lint format types check-docs docs lock venv engine bench clean

VENV := .venv
PYTHON := $(VENV)/bin/python
READY := $(VENV)/.ready
READY_ML := $(VENV)/.ready-ml

help: ## Show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

demo: venv engine ## Package and deploy the example model, ask it something, show the UI's address
	@$(PYTHON) -m deploy.demo start

demo-env: ## Print the variables with which the command line shares the demo's card store
	@$(PYTHON) -m deploy.demo env

demo-stop: ## Remove everything that `make demo` made
	@if [ -x $(PYTHON) ]; then $(PYTHON) -m deploy.demo stop; else echo "There is no demo to stop."; fi

test: lint types engine $(READY_ML) ## Lint, strict types and all tests but the slow ones
	@$(PYTHON) -m pytest -m "not slow"

test-slow: engine $(READY_ML) ## The slow tests: runs killed in every step, long soaks
	@$(PYTHON) -m pytest -m slow

ENGINE_TESTS := $(addprefix constellation_docker_tests/,engine compose rollout \
	packaging/test_image.py packaging/test_image_failures.py \
	packaging/test_own_dockerfile.py packaging/test_publishing.py packaging/test_verification.py)

# Slow ones included, about a quarter of an hour for each engine. Every engine is tried, whatever another one's tests said.
ENGINE_BESIDE := $(PYTHON) -m deploy.engine_of_suite sid

test-engines: engine $(READY_ML) ## What faces an engine, on this machine's and on Debian's newest beside it, with both image stores
	@failed=0; for engine in "" "$(ENGINE_BESIDE) --" "$(ENGINE_BESIDE) --containerd-store --"; do \
		$$engine $(PYTHON) -m pytest $(ENGINE_TESTS) || failed=1; \
	done; exit $$failed

lint: venv
	@$(VENV)/bin/ruff check . && $(VENV)/bin/ruff format --check -q .

types: venv
	@$(VENV)/bin/mypy

format: venv ## Put the code into shape
	@$(VENV)/bin/ruff check -q --fix . ; $(VENV)/bin/ruff format -q .

docs: $(READY_ML) ## Write the pages and files that are made from the code
	@$(PYTHON) -m deploy.configuration_page docs/configuration.md
	@$(PYTHON) -m deploy.task_schemas constellation_docker/gateway/task_schemas.json

bench: engine $(READY_ML) ## Measure, and write benchmarks/RESULTS.md
	@$(PYTHON) -m benchmarks.packaging
	@$(PYTHON) -m benchmarks.serving
	@$(PYTHON) -m benchmarks.rollout

lock: venv ## Resolve the lock files anew
	@$(VENV)/bin/uv pip compile -q --upgrade --python-version 3.11 --universal --generate-hashes --extra dev pyproject.toml -o requirements.lock

engine: venv
	@$(PYTHON) deploy/bootstrap_engine.py

venv: $(READY)

$(READY): requirements.lock pyproject.toml deploy/bootstrap_venv.sh
	@deploy/bootstrap_venv.sh $(VENV) requirements.lock

$(READY_ML): $(READY) requirements-ml.lock
	@deploy/bootstrap_venv.sh $(VENV) requirements-ml.lock

clean: demo-stop ## Remove the demo and the virtual environment
	@rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache
