# Needs Python 3.11 or newer (with venv) and make; everything else comes from requirements/*.txt into .venv.
.DEFAULT_GOAL := help

PYTHON ?= $(shell for p in python3 python3.14 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

# Networks for `make bench` that are too big to be kept here; MODELS_FROM=FOLDER adds .onnx files of yours.
BENCH_MODELS := $(VENV)/bench-models

# Stamp files: set-up runs again only when the locks or pyproject.toml change.
RUNTIME := $(VENV)/.runtime-installed
DEV := $(VENV)/.dev-installed

# The file that `make gpu-check` writes, its time in seconds, and a package of TensorRT to install first (TENSORRT=tensorrt-cu13==11.4.0.106).
# GPU_PYTHON=python3 takes an environment that has the dependencies already, on a node without a network.
GPU_OUTPUT := gpu-check.json
GPU_SECONDS := 540
TENSORRT :=
GPU_PYTHON := $(BIN)/python

# What is compiled is kept, whatever the environment says: else each server and each command of a test would compile all packages anew.
unexport PYTHONDONTWRITEBYTECODE

# One worker more than processors: some tests wait, for processes that are killed and networks that are cut. tests/file_order.py orders the files.
PYTEST := $(BIN)/python -m pytest -q -n $(shell expr $$(getconf _NPROCESSORS_ONLN) + 1) --dist loadfile --no-loadscope-reorder

.PHONY: help demo gpu-check bench bench-durable bench-peers bench-serving bench-nncf bench-sizes bench-deployment test test-long test-without fuzz faults soak lint format docs lock docker-check clean

help: ## say what there is
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

demo: $(RUNTIME) ## start the service, optimize two models over HTTP, leave the reports in demo-output/
	$(BIN)/python -m examples.demo

bench: $(DEV) $(BENCH_MODELS)/models.json ## compare the orders of the search, run whole jobs beside plain int8, measure cost, build plans (MODELS="DIR ..." for more networks)
	$(BIN)/python -m benchmarks.orders
	$(BIN)/python -m benchmarks.jobs
	$(BIN)/python -m benchmarks.kinds
	$(BIN)/python -m benchmarks.cost --models $(BENCH_MODELS)
	$(BIN)/python -m benchmarks.integer_schemes
	$(BIN)/python -m benchmarks.verdicts
	$(BIN)/python -m benchmarks.plans --models $(MODELS)

$(BENCH_MODELS)/models.json: | $(DEV)
	@echo "Preparing ResNet50, MobileNetV2, BERT-base and MiniLM (once; PyTorch goes into an environment of its own) ..."
	$(BIN)/python -m benchmarks.models $(BENCH_MODELS) --environment $(VENV)/bench-torch $(if $(MODELS_FROM),--taken-from $(MODELS_FROM))

bench-peers: $(DEV) ## set onnxruntime's one-line quantizers beside whole jobs, on every network of the benchmarks; writes docs/images/peers.svg too
	$(BIN)/python -m benchmarks.peers

bench-nncf: $(DEV) ## run NNCF's accuracy control beside a job of ours (NNCF in an environment of its own, 0.6 GB)
	$(BIN)/python -m benchmarks.nncf_control --environment $(VENV)/bench-nncf

bench-serving: $(DEV) ## uploads, status polls and answers of a server on loopback, beside a running job
	$(BIN)/python -m benchmarks.serving

bench-sizes: $(DEV) ## run whole jobs on networks of 45 MB to 2.2 GB and note their memory and time (an hour, 20 GB of disk)
	$(BIN)/python -m benchmarks.sizes

bench-deployment: $(DEV) ## simulate JOBS jobs on 200 GPUs with failures, on the scheduler's own code: queue times, fairness, idle GPUs, lost work (15 minutes of a processor)
	$(BIN)/python -m benchmarks.deployment --jobs $(or $(JOBS),10000) --seed $(or $(SEED),0)

bench-durable: $(DEV) ## what it costs that jobs outlast a crash: a call in Python, a server, several processes; one, two and four workers
	$(BIN)/python -m benchmarks.durable

test: lint ## every check, and every test but the long ones
	$(PYTEST) -m "not long"

test-long: $(DEV) ## the long tests: more whole jobs, faults and generated models, which guard against what is rare
	$(PYTEST) -m long

test-without: $(DEV) ## the tests of `make test` with HIDE=vnni or HIDE=avx512 hidden from them, where the processor can (root, gcc)
	$(BIN)/python -m benchmarks.other_processors $(or $(HIDE),vnni) $(PYTEST) -m "not long"

fuzz: $(DEV) ## try COUNT generated models from SEED on: laws for all, whole jobs for one in ten (JOBS=onnxruntime-cpu,tensorrt-rtx); KEEP=FOLDER keeps findings
	$(BIN)/python -m tests.generated.fuzz --seed $(or $(SEED),0) --count $(or $(COUNT),1000) --jobs $(or $(JOBS),onnxruntime-cpu) --every $(or $(EVERY),10) $(if $(KEEP),--keep $(KEEP))

faults: $(DEV) ## break real servers in 22 ways and several processes on one Postgres in 27, at TRIALS seeded moments each, and print what was lost and what ran twice (root makes the disks and the networks; 45 minutes)
	$(BIN)/python -m tests.faults.table --seed $(or $(SEED),0) --trials $(or $(TRIALS),5)
	$(BIN)/python -m tests.distributed.table --seed $(or $(SEED),0) --trials $(or $(TRIALS),3)

soak: $(DEV) ## run JOBS small real jobs over HTTP while processes are killed at random moments, on one server, then on several processes; MINUTES at most each
	$(BIN)/python -m tests.soak --mode embedded --jobs $(or $(JOBS),300) --seed $(or $(SEED),0) --minutes $(or $(MINUTES),60)
	$(BIN)/python -m tests.soak --mode distributed --jobs $(or $(JOBS),300) --seed $(or $(SEED),0) --minutes $(or $(MINUTES),60)

gpu-check: $(if $(filter $(BIN)/python,$(GPU_PYTHON)),$(DEV)) ## on a GPU node: what CUDA and TensorRT do there, and the tests marked gpu, in under 10 minutes; writes gpu-check.json
	$(if $(TENSORRT),$(GPU_PYTHON) -m pip install --quiet $(TENSORRT))
	$(GPU_PYTHON) -m service self-check --seconds $(GPU_SECONDS) --tests tests --output $(GPU_OUTPUT)

lint: $(DEV) ## formatting, lint, types and import rules, without the tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(DEV) ## rewrite the sources as `make lint` wants them
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(RUNTIME) ## write the tables of docs/configuration.md anew
	$(BIN)/python -m engine_builder.config.reference docs/configuration.md

docker-check: ## build the images for real (root; installs buildah by apt-get) and ask the server in one for /healthz
	bash docker/check.sh

lock: ## resolve pyproject.toml into requirements/*.txt (versions stay; LOCK_OPTIONS=--upgrade renews them)
	$(PYTHON) -m venv $(VENV)-lock
	$(VENV)-lock/bin/python -m pip --quiet install --upgrade pip pip-tools
	$(VENV)-lock/bin/python requirements/lock.py $(LOCK_OPTIONS)
	rm -rf $(VENV)-lock

clean: ## remove the environment, caches and the demo's output
	rm -rf $(VENV) $(VENV)-lock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis demo-output
	find . -name __pycache__ -not -path './.git/*' -prune -exec rm -rf {} +

$(BIN)/python:
	@test -n "$(PYTHON)" || { echo "make: no Python 3.11 or newer with venv found; install one (Debian: python3 python3-venv) or set PYTHON=/path/to/python3" >&2; exit 1; }
	@echo "Creating $(VENV) with $$($(PYTHON) --version)"
	$(PYTHON) -m venv $(VENV)

$(RUNTIME): requirements/runtime.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@echo "Installing the locked dependencies (about a minute) ..."
	@$(PIP) install --no-compile --require-hashes -r requirements/runtime.txt -r requirements/build.txt
	@$(PIP) install --no-deps --no-build-isolation --editable .
	@touch $@

$(DEV): requirements/dev.txt $(RUNTIME)
	@echo "Installing the locked development tools ..."
	@$(PIP) install --no-compile --require-hashes -r requirements/dev.txt
	@touch $@
