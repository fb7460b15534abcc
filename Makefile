# Every target sets up what it needs, once; `make demo` and `make test` are the two to know.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo demo-moderation test chaos lint bench bench-quick lock clean

demo: .venv/runtime.stamp ## trips in, decisions out: make demo [TRIPS=file] [RIDES=20000]
	@$(BIN)/braidstream demo $(if $(TRIPS),--trips "$(TRIPS)") $(if $(RIDES),--rides $(RIDES))

demo-moderation: .venv/runtime.stamp ## videos in, decisions and notifications out: make demo-moderation [VIDEOS=3000]
	@cd examples/moderation && "$(CURDIR)/$(BIN)/python" -m moderation.demo $(if $(VIDEOS),--videos $(VIDEOS))

test: .venv/dev.stamp ## everything that can be tested here
	@$(BIN)/python -m pytest -n auto --maxprocesses=4 --no-loadscope-reorder

chaos: .venv/dev.stamp ## lose brokers and connections, then break everything for a while: make chaos [SECONDS=600] [SEED=n] [PROTOCOL=consumer] [GUARANTEE=at_least_once]
	@$(BIN)/python -m pytest --long
	@$(BIN)/python -m tests.faults $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED)) \
	  $(if $(PROTOCOL),--protocol $(PROTOCOL)) $(if $(GUARANTEE),--guarantee $(GUARANTEE)) \
	  $(if $(MARKDOWN),--markdown "$(MARKDOWN)")

lint: .venv/dev.stamp ## format, lint, types, import rules
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

bench: .venv/dev.stamp ## measure everything, for hours (first bench/peers/setup): make bench [JSON=file]
	@$(BIN)/python -m bench full $(if $(JSON),--json "$(JSON)")

bench-quick: .venv/dev.stamp ## the main ratios, in about two minutes
	@$(BIN)/python -m bench quick --runs 3 $(if $(JSON),--json "$(JSON)")

lock: ## resolve the dependencies again (needs uv)
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header -q --extra build pyproject.toml -o requirements.lock
	uv pip compile --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links \
	  --no-annotate --no-header -q --extra build --extra dev --extra otel pyproject.toml -o requirements-dev.lock

clean:
	rm -rf .venv models examples/moderation/models

.venv/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "braidstream needs Python 3.11 or newer; set PYTHON=python3.x")'
	@$(PYTHON) -m venv .venv

.venv/runtime.stamp: requirements.lock pyproject.toml | .venv/bin/python
	@echo "Installing the locked dependencies into .venv (once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation -e .
	@touch $@

.venv/dev.stamp: requirements-dev.lock .venv/runtime.stamp
	@echo "Installing the locked development tools into .venv (once)"
	@$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes -r requirements-dev.lock
	@touch $@
