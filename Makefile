# `make run` and `make test` are all a newcomer needs; both make their own environment in .venv.
# Another package source: make run PIP_ARGS="--index-url https://…"
PYTHON ?= python3.11
PIP_ARGS ?=
VENV := .venv
BIN := $(VENV)/bin
STARTED := $(shell date +%s)
ELAPSED = $$(( $$(date +%s) - $(STARTED) )) s
PIP = $(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt $(PIP_ARGS)
export RAY_USAGE_STATS_ENABLED = 0
export FLWR_TELEMETRY_ENABLED = 0
export FLWR_DISABLE_UPDATE_CHECK = 1
export FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION = 1

.PHONY: run test check format bench soak clean

run: $(VENV)/simulate.stamp
	@echo "3/3 four hospitals train together ($(ELAPSED))"
	@$(BIN)/collegium simulate hospitals
	@echo "done ($(ELAPSED))"

test: $(VENV)/dev.stamp
	@echo "3/3 format, lint, types, tests ($(ELAPSED))"
	@$(MAKE) --no-print-directory check
	@$(BIN)/pytest -q -m "not soak"

check: $(VENV)/dev.stamp
	@$(BIN)/ruff format --check .
	@$(BIN)/ruff check .
	@$(BIN)/mypy

format: $(VENV)/dev.stamp
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(VENV)/dev.stamp
	@$(BIN)/python -m simulations.bench.hospitals
	@$(BIN)/python -m simulations.bench.secagg
	@$(BIN)/python -m simulations.bench.noise
	@$(BIN)/python -m simulations.bench.privacy
	@$(BIN)/python -m simulations.bench.audit
	@$(BIN)/python -m simulations.bench.dp
	@$(BIN)/python -m simulations.bench.plan
	@$(BIN)/python -m simulations.bench.divided
	@$(BIN)/python -m simulations.bench.real
	@$(BIN)/python -m simulations.bench.channel
	@$(BIN)/python -m simulations.bench.joint

soak: $(VENV)/dev.stamp
	@$(BIN)/pytest -q -m soak

clean:
	rm -rf $(VENV) build dist

$(BIN)/python:
	@echo "1/3 environment ($(ELAPSED))"
	@command -v $(PYTHON) >/dev/null || { echo "$(PYTHON) was not found; install Python 3.11, or say make PYTHON=python3.12"; exit 2; }
	@$(PYTHON) -m venv $(VENV)

$(VENV)/simulate.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "2/3 packages: torch, flwr, opacus and what they need ($(ELAPSED))"
	@$(PIP) -e ".[simulate]"
	@touch $@

$(VENV)/dev.stamp: $(BIN)/python pyproject.toml constraints.txt
	@echo "2/3 packages: everything, Ray and the tools included ($(ELAPSED))"
	@$(PIP) --upgrade "pip>=25.1"
	@$(PIP) -e ".[all]" --group dev
	@touch $@ $(VENV)/simulate.stamp
