# Everything a developer types. `make` alone lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

# The first interpreter that is new enough; `make PYTHON=/path/to/python install` chooses another.
PYTHON ?= $(shell for p in python3 python3.12 python3.11 python3.13 python; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo "$$p" && break; done)
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
ARGS ?=
PORT ?= 5000

# For two cores: one worker more, since many tests wait for processes. Each has one thread.
TEST_WORKERS ?= 3
TEST_THREADS ?= 1
# What `make test` runs: `unit`, or `coverage`.
TESTS ?= unit

QUICK := -m "not slow and not faults and not real_data" tests/config tests/models tests/reports tests/test_rooms.py \
	tests/test_metrics.py tests/test_metric_sums.py tests/test_files.py tests/data/test_baselines.py \
	tests/data/test_loader.py tests/data/test_splits.py tests/data/test_orders.py tests/data/test_sequences.py \
	tests/data/test_text.py tests/sweeps/test_space.py tests/sweeps/test_optuna_inside.py \
	tests/tracking/test_journal.py tests/tracking/test_mlflow_inside.py tests/training/test_lightning_inside.py
NEXT ?= hydra-core omegaconf pytorch-lightning lightning mlflow optuna

export MLFLOW_DISABLE_TELEMETRY := true
export DO_NOT_TRACK := true

.PHONY: help install run test lint types unit coverage quick test-next test-xla test-faults ui docs bench arguments audit clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-12s %s\n", $$1, $$2}' Makefile
	@echo
	@echo "  ARGS=... adds to a command: make run ARGS='trainer.max_epochs=2 seed=1'"

install: $(STAMP)  ## make .venv and install the project with what its tests need, pinned

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed: install it, or name one with make PYTHON=..." >&2; exit 2; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	@touch $@

run: $(STAMP)  ## train, test and track the MNIST network: python -m pipeline +experiment=mnist_cnn
	$(BIN)/python -m pipeline +experiment=mnist_cnn $(ARGS)

test: lint  ## lint, types, and the tests
	@$(MAKE) --no-print-directory -j2 types $(TESTS)

lint: $(STAMP)  ## ruff: rules and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)  ## mypy, strict on src/
	$(BIN)/mypy

unit: $(STAMP)  ## pytest
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal $(ARGS)

# Tracing every line makes the tests half as slow again, but from Python 3.12 on, where the interpreter says which ran.
coverage: $(STAMP)  ## pytest with coverage of src/pipeline
	COVERAGE_CORE=$$($(BIN)/python -c 'import sys; print("sysmon" if sys.version_info >= (3, 12) else "ctrace")') \
		OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal \
		--cov --cov-report=term --cov-fail-under=90 $(ARGS)

quick: $(STAMP)  ## the tests that need no process and next to no training: under a minute
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_WORKERS) --dist worksteal -q $(QUICK) $(ARGS)

test-next:  ## the quick tests in .venv-next, with the newest pre-releases of what the pipeline stands on
	test -x .venv-next/bin/python || $(PYTHON) -m venv .venv-next
	.venv-next/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	.venv-next/bin/python -m pip install --quiet --disable-pip-version-check --pre --upgrade $(NEXT)
	.venv-next/bin/python -m pip list 2>/dev/null | grep -iE '^(hydra-core|omegaconf|pytorch-lightning|mlflow|optuna) '
	OMP_NUM_THREADS=$(TEST_THREADS) .venv-next/bin/python -m pytest -n $(TEST_WORKERS) --dist worksteal -q $(QUICK) $(ARGS)

# torch_xla's last release is made for torch 2.9, which the project itself does not take any more.
test-xla:  ## trainer=tpu without a TPU, in .venv-xla with torch_xla and its torch 2.9 (several GB)
	test -x .venv-xla/bin/python || $(PYTHON) -m venv .venv-xla
	grep -vE '^((torch|torchvision|triton)==|nvidia|cuda)' constraints.txt > .venv-xla/constraints.txt
	.venv-xla/bin/python -c 'import pathlib, re, tomllib; \
		needed = tomllib.loads(pathlib.Path("pyproject.toml").read_text())["project"]["dependencies"]; \
		print("\n".join(name for name in needed if not re.match("torch(vision)?[>=]", name)))' > .venv-xla/needed.txt
	.venv-xla/bin/python -m pip install --quiet --disable-pip-version-check --constraint .venv-xla/constraints.txt \
		'torch_xla==2.9.0' 'torch==2.9.*' 'torchvision==0.24.*' -r .venv-xla/needed.txt pytest pytest-timeout
	.venv-xla/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --editable .
	PJRT_DEVICE=CPU OMP_NUM_THREADS=$(TEST_THREADS) .venv-xla/bin/python -m pytest -q tests/training/test_tpu.py $(ARGS)

test-faults: $(STAMP)  ## the long form of the fault tests, with a table of what was survived
	OMP_NUM_THREADS=$(TEST_THREADS) $(BIN)/python -m pytest -n $(TEST_WORKERS) -m faults --long --timeout 900 $(ARGS)

ui: $(STAMP)  ## MLflow's pages on the tracking store, opened where runs are compared (MLFLOW_TRACKING_URI, else experiments/mlflow.db)
	$(BIN)/python -m pipeline task=ui task.port=$(PORT) $(ARGS)

docs: $(STAMP)  ## docs/ as a site in site/ (installs mkdocs-material)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[docs]'
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict $(ARGS)

bench: $(STAMP)  ## speed against a hand-written loop
	$(BIN)/python -m benchmarks $(ARGS)

arguments: $(STAMP)  ## write down what our classes take: range, default and help of each setting
	$(BIN)/python -m pipeline.config.write_arguments

audit: $(STAMP)  ## known advisories against the pinned versions
	$(BIN)/python .ci/audit

clean:  ## remove caches (never data, runs or the environment)
	rm -rf .pytest_cache .mypy_cache .ruff_cache .hypothesis .coverage .coverage.* htmlcov build dist site
	find src tests benchmarks -name __pycache__ -type d -prune -exec rm -rf {} +
