# Everything a developer does here. `make` alone lists the targets.
# Needs only Python 3.11 or later, make and a shell; all else is installed into .venv.

SHELL := /bin/sh
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
PACKAGE := beamlit_operator
# Tests are independent of each other: one worker per core.
JOBS ?= auto
PYTEST_ARGS ?=

# What set-up installs can be found by name, after whatever the machine has of its own. Not exported:
# set-up must not find the interpreter of the environment that it is about to replace.
# exec: a signal to make must reach the program and not end at a shell in between.
WITH_TOOLS := exec env PATH="$$PATH:$(CURDIR)/$(BIN)"

.DEFAULT_GOAL := help
.PHONY: help setup demo dev test test-long lint format crds plots lock lock-images bench-laptop bench-admission bench-devcluster bench-gateway \
    bench-coldstart bench-fetch bench-operator bench-availability bench-rollout e2e soak chart image \
    image-check clean

help: ## list the targets
	@awk -F':.*## ' '/^[a-z0-9-]+:.*## / {printf "  make %-18s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

# The newest interpreter that really runs and can make an environment; a name on PATH may be a shim
# that fails. 3.11 to 3.13 are tested, so they come first. PYTHON=... overrides.
define FIND_PYTHON
for candidate in $(PYTHON) python3.13 "$$HOME"/.pyenv/versions/3.13*/bin/python3 \
    python3.12 "$$HOME"/.pyenv/versions/3.12*/bin/python3 \
    python3.11 "$$HOME"/.pyenv/versions/3.11*/bin/python3 \
    python3 python3.14 "$$HOME"/.pyenv/versions/3.*/bin/python3 python; do \
  if "$$candidate" -c 'import sys, ssl, venv, ensurepip; sys.exit(sys.version_info < (3, 11))' \
      >/dev/null 2>&1; then found="$$candidate"; break; fi; \
done; \
if [ -z "$$found" ]; then \
  echo "No Python 3.11 or later with venv was found. Install one (Debian: python3 python3-venv)," \
       "or name it: make PYTHON=/path/to/python3" >&2; exit 1; \
fi
endef

$(READY): constraints.txt pyproject.toml
	@found=""; $(FIND_PYTHON); \
	echo "Setting up $(VENV) with $$("$$found" --version) (once; a minute or two)"; \
	rm -rf $(VENV); "$$found" -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps \
	    -r constraints.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps \
	    --no-build-isolation --editable .
	@touch $(READY)

setup: $(READY) ## make .venv with everything in it

demo: $(READY) ## the main job, end to end, on an embedded cluster
	@$(WITH_TOOLS) $(BIN)/beamlit demo

dev: $(READY) ## the embedded cluster with sample models, until Ctrl-C
	@$(WITH_TOOLS) $(BIN)/beamlit dev --samples

# loadgroup without groups: a worker gets one test after the other, whatever file it is in.
test: $(READY) ## all tests but the long ones
	@$(WITH_TOOLS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m "not long" $(PYTEST_ARGS)

test-long: $(READY) ## the long ones: what fails under load, and the commands of the pages
	@$(WITH_TOOLS) $(BIN)/python -m pytest -n $(JOBS) --dist loadgroup -m long $(PYTEST_ARGS) tests/integration

lint: $(READY) ## style, types, the rooms' borders, and that crds/ is up to date and additive
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m $(PACKAGE).api.crd --check crds
	$(BIN)/python -m $(PACKAGE).api.compatibility crds --after tests/fixtures/releases/*/chart.tgz
	$(BIN)/python -m $(PACKAGE).api.reference --check docs/reference.md
	$(BIN)/python -m $(PACKAGE).controllers.admission.manifests --check manifests/admission
	$(BIN)/python helm/generate.py --check
	$(BIN)/python helm/operations.py --check
	$(BIN)/python helm/kustomize.py --check

format: $(READY) ## rewrite the code in the house's format
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

crds: $(READY) ## generate crds/ and docs/reference.md from the models
	$(BIN)/python -m $(PACKAGE).api.crd crds
	$(BIN)/python -m $(PACKAGE).api.reference docs/reference.md
	$(BIN)/python -m $(PACKAGE).controllers.admission.manifests manifests/admission
	$(BIN)/python helm/generate.py
	$(BIN)/python helm/operations.py
	$(BIN)/python helm/kustomize.py

chart: $(READY) ## bring the chart's copies and table of values, and what Kustomize needs, up to date
	$(BIN)/python helm/generate.py
	$(BIN)/python helm/operations.py
	$(BIN)/python helm/kustomize.py

# Docker, or a program that is called so. IMAGE=... names the result, PYTHON_IMAGE=...@sha256:... the
# base where a build must be the same again.
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGE ?= ghcr.io/beamlit/beamlit-operator:$(VERSION)

image: ## build the image of operator, agent and command line (needs Docker)
	@docker info >/dev/null 2>&1 || { \
	  echo "make image needs Docker with a running engine, and 'docker info' fails here." \
	       "Without one, build the Dockerfile with another tool, such as buildah or kaniko." >&2; exit 1; }
	docker build --tag $(IMAGE) \
	    --build-arg VERSION=$(VERSION) --build-arg REVISION="$$(git rev-parse HEAD)" \
	    --build-arg SOURCE_DATE_EPOCH="$$(git log -1 --format=%ct)" \
	    $(if $(PYTHON_IMAGE),--build-arg PYTHON=$(PYTHON_IMAGE)) .

image-check: $(READY) ## whether what the image holds starts, read-only and not as root; two minutes
	@$(WITH_TOOLS) $(BIN)/python .ci/imagecheck.py

plots: $(READY) ## draw the simulated autoscaler for docs/autoscaling.md
	$(BIN)/python -m tests.plots.autoscaling

# The lock holds names, versions and hashes, and no address of any registry.
lock: $(READY) ## compute constraints.txt anew from pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv pip compile pyproject.toml --all-extras --group test --group build --universal \
	    --python-version 3.11 --generate-hashes --no-header --no-annotate --no-emit-index-url \
	    --quiet --output-file constraints.txt

# What stands for the images of the embedded cluster; see their .in files. Versions that are there stay.
IMAGES := operator/$(PACKAGE)/devcluster/images
LOCK_IMAGE = $(BIN)/uv pip compile --universal --generate-hashes --no-header --no-annotate \
    --no-emit-index-url --quiet
lock-images: $(READY) ## compute the packages that stand for the embedded cluster's images
	$(BIN)/python -m pip install --quiet uv
	$(LOCK_IMAGE) $(IMAGES)/mlserver.in --python-version 3.10 --output-file $(IMAGES)/mlserver.txt \
	    --no-emit-package xgboost --no-emit-package nvidia-nccl-cu12 --no-emit-package nvidia-nccl-cu13
	$(LOCK_IMAGE) $(IMAGES)/llamacpp.in --python-version 3.10 --output-file $(IMAGES)/llamacpp.txt
	$(LOCK_IMAGE) $(IMAGES)/triton.in --python-version 3.13 --output-file $(IMAGES)/triton.txt
	echo 'nvidia-pytriton==0.7.0' | $(LOCK_IMAGE) - --python-version 3.13 --no-deps \
	    >> $(IMAGES)/triton.txt

bench-laptop: $(READY) ## time to an API, a cold start, a warm request, memory; about two minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.laptop

bench-devcluster: $(READY) ## the embedded API server: writes, watches, memory; about a minute
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.devcluster

bench-gateway: $(READY) ## warm requests beside other proxies (needs wrk); about three minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.gateway

bench-coldstart: $(READY) ## what the gateway adds to a cold start, at 5,000 deployments; a minute
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.coldstart

# What fetching is compared with, apart from what the project itself installs.
FETCH_TOOLS := build/fetchtools
$(FETCH_TOOLS)/.ready: tests/bench/fetchtools.txt $(READY)
	@rm -rf $(FETCH_TOOLS); $(BIN)/python -m venv $(FETCH_TOOLS)
	@$(FETCH_TOOLS)/bin/python -m pip install --quiet --disable-pip-version-check --require-hashes \
	    --no-deps -r tests/bench/fetchtools.txt
	@touch $@

bench-fetch: $(READY) $(FETCH_TOOLS)/.ready ## fetching beside aws s3 and hf download; about four minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.fetch

bench-rollout: $(READY) ## 20 rollouts at 200 requests/s: what failed, went astray, how soon; five minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.rollout

bench-admission: $(READY) ## what the API server waits for the webhook, at 5,000 deployments; a minute
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.admission

bench-operator: $(READY) ## thousands of deployments at once, a restart, at rest; about eleven minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.operator

bench-availability: $(READY) ## what callers notice of faults, restarts and upgrades; about five minutes
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.availability

# A release of kind and an image of a node that belongs to it.
KIND_VERSION ?= v0.33.0
KUBECTL_VERSION ?= v1.36.4
KIND_NODE ?= kindest/node:v1.36.4@sha256:099e049362a1526b2db71494e1947aae99bd16290d7c895f2b7ea312e3cbfaed

e2e: $(READY) ## install, upgrade, policies, drains, uninstall on a kind cluster (needs Docker)
	@KIND_VERSION=$(KIND_VERSION) KUBECTL_VERSION=$(KUBECTL_VERSION) \
	    $(BIN)/python -m pytest tests/e2e --kind-image $(KIND_NODE) $(PYTEST_ARGS)

soak: $(READY) ## 20 minutes of traffic, rollouts and kills: nothing lost, nothing grows
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.soak

bench-policy: $(READY) ## policies decided per second; one edit over 5,000 deployments; ten minutes
	@$(BIN)/python -m tests.bench.policy
	@$(WITH_TOOLS) $(BIN)/python -m tests.bench.policy_edit

clean: ## remove what was set up and built
	rm -rf $(VENV) build dist .beamlit .pytest_cache .mypy_cache .ruff_cache
