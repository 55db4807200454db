# The newcomer's commands. Each starts from a clean checkout with only Python 3.11+ and make.
PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
PIP     = $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps
COMPILE = uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-annotate --no-header -q

.PHONY: run demo bench faults test soak check format docs texts lock clean
.DEFAULT_GOAL := run

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Zapwatch needs Python 3.11 or newer; try: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
	@$(PYTHON) -m venv $(VENV) \
	  || { rm -rf $(VENV); echo "No virtual environment could be made. On Debian: apt-get install python3-venv" >&2; exit 1; }

$(VENV)/run.stamp: requirements.lock pyproject.toml | $(BIN)/python
	@echo "Installing what requirements.lock names into $(VENV)"
	@$(PIP) --require-hashes -r requirements.lock
	@$(PIP) --no-build-isolation --editable .
	@touch $@

$(VENV)/dev.stamp: requirements-dev.lock $(VENV)/run.stamp
	@echo "Installing what requirements-dev.lock names into $(VENV)"
	@$(PIP) --require-hashes -r requirements-dev.lock
	@touch $@

run: $(VENV)/run.stamp           ## the service on 127.0.0.1:8080, with its own PostgreSQL
	@exec $(BIN)/zapwatch serve

demo: $(VENV)/run.stamp           ## the service beside gateways that misbehave: incidents within a minute
	@exec $(BIN)/zapwatch demo

bench: $(VENV)/run.stamp         ## every figure that the README states, in some half an hour; a missed aim fails
	$(BIN)/python -m bench $(ARGS)

faults: $(VENV)/run.stamp        ## the service killed, cut off and attacked, in some forty minutes; a broken law fails
	$(BIN)/python -m faults $(ARGS)

test: $(VENV)/dev.stamp          ## every test, on a real PostgreSQL that the tests start
	$(BIN)/python -m pytest $(ARGS)

soak: $(VENV)/dev.stamp          ## the long form of tests that are long by nature, one by one, in some seven minutes
	SOAK=1 $(BIN)/python -m pytest -p tests.no_skips -m soak $(ARGS)

check: $(VENV)/dev.stamp         ## formatting, lint, types, import contracts, stale docs
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m statemachine.diagram --check docs/channel-machine.md

format: $(VENV)/dev.stamp
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/dev.stamp
	$(BIN)/python -m statemachine.diagram > docs/channel-machine.md

texts: $(VENV)/dev.stamp         ## gathers the sentences for people, and compiles their translations
	@mkdir -p build
	$(BIN)/pybabel -q extract -k N_ --no-location -w 110 --sort-output -o build/texts.pot --project Zapwatch receiver
	$(BIN)/pybabel -q update -d receiver/i18n/locale -D zapwatch -i build/texts.pot --no-fuzzy-matching --ignore-obsolete --ignore-pot-creation-date -w 110
	$(BIN)/pybabel -q compile -d receiver/i18n/locale -D zapwatch

lock:                            ## needs uv; writes hashes and no registry address
	$(COMPILE) --extra build -o requirements.lock
	$(COMPILE) --extra build --extra dev -c requirements.lock -o requirements-dev.lock

clean:
	rm -rf $(VENV) build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
