# The same few commands for people and for CI. `make help` lists them.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Two processes; tests/conftest.py says what stays together in one, and what begins first.
# One thread of arithmetic each: more than there are cores wait for each other at every barrier.
TWO := --numprocesses 2 --dist loadgroup --no-loadscope-reorder
# Client libraries that do not install beside ours, for their tests.
CLIENTS := .venv-clients
# Azure's emulator, for the tests of jobs that write there.
AZURITE := .azurite
# Not in .venv: jsonschema's format checks, which they want, take each Ray process 3.6 s of CPU to import.
SUPPLY := .venv-supply-chain
WORK ?= demo-out
# The index of CPU wheels named on PyTorch's install page: some gigabytes less on Linux.
TORCH_INDEX_URL ?=
# Of `make gpu`: the interpreter that has torch with CUDA, and further options.
GPU_PYTHON ?= $(PYTHON)
ARGS ?=
# Of training the embedded model.
MINUTES ?= 200

.DEFAULT_GOAL := help
.PHONY: help setup clients azurite demo check test test-fast chaos docs settings pictures sbom audit bench gpu serve embedded-model

help: ## list the commands
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-15s %s\n", $$1, $$2}'

setup: $(VENV)/.stamp ## create .venv with everything pinned

$(VENV)/.stamp: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt \
		$(if $(TORCH_INDEX_URL),--no-deps --index-url "$(TORCH_INDEX_URL)") torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

clients: $(CLIENTS)/.stamp ## create .venv-clients for the tests of client libraries that want other versions

$(CLIENTS)/.stamp: tests/serve_app/clients.txt
	$(PYTHON) -m venv $(CLIENTS)
	$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps --requirement $<
	touch $@

azurite: $(AZURITE)/.stamp ## install Azure's emulator into .azurite, where npm can; else its tests are skipped

$(AZURITE)/.stamp: tests/pipelines/azurite.txt
	@npm install --silent --no-audit --no-fund --ignore-scripts --fetch-retries 1 --prefix $(AZURITE) $$(cat $<) && touch $@ \
		|| echo "npm is not here or cannot install it: outputs in Azure are not tested"

demo: setup ## rerank real text offline, then serve it and ask it over HTTP
	$(BIN)/python -m tools.demo --work-dir $(WORK)

check: setup ## lint, types, architecture
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

test: check clients azurite ## check, then every test that this machine can run but those of `make chaos`
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) -m 'not chaos'

test-fast: setup ## only the tests without Ray that take no seconds each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest $(TWO) --hypothesis-profile fast \
		-m 'not slow and not seconds and not gpu and not browser and not chaos'

chaos: setup azurite ## kill what can be killed, under load; the table goes to docs/reliability.md too
	$(BIN)/python -m pytest $(TWO) -q -m chaos -p tests.deploy.chaos_table --chaos-page docs/reliability.md $(ARGS)

docs: setup ## build the manual into site/; a broken link fails
	NO_MKDOCS_2_WARNING=1 $(BIN)/python -m mkdocs build --strict --quiet --config-file deploy/mkdocs.yml

settings: setup ## write the manual's tables of settings and metrics anew from the code
	$(BIN)/python -m tools.settings_page
	$(BIN)/python -m tools.metrics_page

pictures: setup ## take and draw the README's pictures anew (needs chromium)
	$(BIN)/python -m benchmarks.chart
	$(BIN)/python -m pytest -q -m browser -k example -p tests.serve_app.picture_option --pictures docs/pictures tests/serve_app/test_playground.py

$(SUPPLY)/.stamp: constraints.txt
	$(PYTHON) -m venv $(SUPPLY)
	$(SUPPLY)/bin/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt cyclonedx-bom pip-audit
	touch $@

sbom: setup $(SUPPLY)/.stamp ## list every installed part with version and licence: build/sbom.json
	mkdir -p build
	$(SUPPLY)/bin/cyclonedx-py environment --pyproject pyproject.toml --output-reproducible --output-file build/sbom.json $(BIN)/python

audit: $(SUPPLY)/.stamp ## ask for known holes in the pinned versions (needs the internet)
	$(SUPPLY)/bin/pip-audit --strict --requirement constraints.txt --no-deps --disable-pip \
		$$(awk -v today=$$(date +%F) '$$2 >= today && !/^#/ {print "--ignore-vuln", $$1}' deploy/audit-waivers.txt)

bench: setup ## our scorer against its peers, on this machine
	$(BIN)/python benchmarks/bench_scorer.py

# No setup: a machine with a GPU has a torch of its own. ARGS="--wheels DIR" brings what it lacks.
gpu: ## judge a GPU in eight minutes: its tests, speed beside predict, memory, a profile
	$(GPU_PYTHON) benchmarks/bench_gpu.py --out gpu-out $(ARGS)

serve: setup ## serve the embedded model on http://127.0.0.1:8000
	$(BIN)/rerank-serve serve_app:app

embedded-model: setup ## make the embedded model again (hours on a CPU): SQUAD_DIR=folder of the question sets
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[embedded-model]'
	$(BIN)/python -m tools.embedded_model --squad-dir "$(SQUAD_DIR)" --work "$(WORK)/embedded-model" --minutes $(MINUTES)
