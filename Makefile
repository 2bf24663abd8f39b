# Everything a person or a machine does with this tree. `make` lists it.
#
# The first target that needs it brings uv into .tools (with pip alone, nothing is installed into your Python), makes .venv and
# installs exactly what the lock file says. Later runs do so again only after the lock has changed.

PYTHON ?= python3
EXTRA ?= cpu
ARGS ?=

UV := .tools/bin/uv
BIN := .venv/bin
RUNTIME := .venv/.synced-$(EXTRA)
DEV := .venv/.synced-$(EXTRA)-dev
NEEDS_RAY := serve or chaos
PARALLEL := -n auto --dist loadscope
COMPILE := $(UV) --no-config pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --only-binary :all: \
	--no-emit-package opencv-python --no-annotate --no-header --quiet $(UPGRADE)

# Their defaults (127.0.0.1 and 8000) are settings: exported from here they would win over .env.
ifdef HOST
export HOST
endif
ifdef PORT
export PORT
endif
unexport VIRTUAL_ENV PYTHONPATH

ifeq ($(filter $(EXTRA),cpu gpu),)
$(error EXTRA is cpu or gpu, not "$(EXTRA)")
endif

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.NOTPARALLEL: # checks share two cores and one environment
.PHONY: help demo serve test test-unit test-serve test-gpu check format bench lock env env-example clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/  make \1|\2/' | column -t -s '|'
	@echo
	@echo "  PYTHON=python3.12  interpreter to build .venv with     EXTRA=gpu  NVIDIA build of ONNX Runtime"
	@echo "  HOST, PORT         where serve and demo listen         ARGS=...   handed to atelier, such as ARGS=--exit"

demo: $(RUNTIME) ## swap a face in a picture and in a video, and show where to look (ARGS=--exit ends after the work)
	$(BIN)/atelier demo $(ARGS)

serve: $(RUNTIME) ## serve on HOST and PORT until Ctrl-C
	$(BIN)/atelier serve $(ARGS)

test: test-unit test-serve ## every test that needs no GPU

test-unit: $(DEV) ## what needs no Ray cluster
	$(BIN)/pytest $(PARALLEL) -m "not ($(NEEDS_RAY) or gpu)" $(ARGS)

test-serve: $(DEV) ## a real local Ray cluster, its processes killed
	$(BIN)/pytest -m "($(NEEDS_RAY)) and not gpu" $(ARGS)

test-gpu: $(DEV) ## what needs an NVIDIA GPU (EXTRA=gpu)
	$(BIN)/pytest -m gpu $(ARGS)

check: $(DEV) ## format, lint, contracts, types, fast tests: under a minute, before every commit
	$(BIN)/ruff format --check --quiet .
	$(BIN)/ruff check --quiet .
	$(BIN)/lint-imports --no-logo
	$(BIN)/mypy
	$(BIN)/pytest -q $(PARALLEL) -m "not ($(NEEDS_RAY) or gpu or slow)" $(ARGS)

format: $(DEV) ## rewrite the code as check wants it
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(RUNTIME) ## measure; each script prints a ratio against its own limit
	@set -e; for script in bench/*.py; do echo "== $$script"; $(BIN)/python -m "bench.$$(basename "$$script" .py)" $(ARGS); done

env: $(DEV) ## only make .venv, with the developer's tools

# insightface asks for opencv-python and the CPU onnxruntime; both would overwrite a folder that we fill by another wheel, so neither
# is written where it does not belong. dev comes first and constrains the others: one version of everything in all three.
lock: | $(UV) ## compile the three lock files from pyproject.toml (UPGRADE=--upgrade takes the newest versions)
	$(COMPILE) --extra cpu --extra dev -o requirements-dev.lock
	$(COMPILE) --extra cpu -c requirements-dev.lock -o requirements-cpu.lock
	$(COMPILE) --extra gpu -c requirements-dev.lock --no-emit-package onnxruntime -o requirements-gpu.lock

env-example: $(RUNTIME) ## write .env.example from the settings
	$(BIN)/python -m serve_app.settings > .env.example

clean: ## remove what can be made again (not var/, where your jobs are)
	rm -rf .venv .tools build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find serve_app deployments tests bench -name __pycache__ -type d -prune -exec rm -rf {} +

define require_python
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' || { \
	    echo "Atelier needs Python 3.11, 3.12 or 3.13, and $(PYTHON) is $$($(PYTHON) --version 2>&1)." \
	         "Name another: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 1; }
endef

$(UV):
	$(require_python)
	$(PYTHON) -m pip install --quiet --disable-pip-version-check --upgrade --target .tools uv

$(BIN)/python: | $(UV)
	$(require_python)
	$(UV) venv --quiet --no-python-downloads --python "$$(command -v $(PYTHON))" .venv

# --no-config: the overrides that pyproject.toml holds for `uv pip install` would drop onnxruntime here.
define install
	$(UV) --no-config pip sync --quiet --python $(BIN)/python --only-binary :all: --require-hashes $(1)
	$(UV) --no-config pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@rm -f .venv/.synced-*
endef

# In a developer's tree the dev lock holds what the runtime lock does: syncing the latter would take the tools away.
$(RUNTIME): requirements-$(EXTRA).lock pyproject.toml | $(BIN)/python
	@if [ -e $(DEV) ]; then $(MAKE) --no-print-directory $(DEV); else $(MAKE) --no-print-directory runtime; fi

.PHONY: runtime
runtime: | $(BIN)/python
	$(call install,requirements-$(EXTRA).lock)
	@touch $(RUNTIME)

.venv/.synced-cpu-dev: requirements-dev.lock pyproject.toml | $(BIN)/python
	$(call install,requirements-dev.lock)
	@touch $@ $(RUNTIME)

# The dev lock names the CPU build of ONNX Runtime; on a GPU machine the gpu lock's takes its place.
.venv/.synced-gpu-dev: requirements-gpu.lock requirements-dev.lock pyproject.toml | $(BIN)/python
	sed '/^onnxruntime==/,/[^\\]$$/d' requirements-dev.lock > .venv/dev-tools.lock
	$(call install,requirements-gpu.lock .venv/dev-tools.lock)
	@touch $@ $(RUNTIME)
