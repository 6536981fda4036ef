.DEFAULT_GOAL := help
.PHONY: help run test test-faults test-soak test-compose check lint types imports schema
.PHONY: bench-quality bench-engine bench-path bench-overload bench-models bench-observability lock environment dev clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ENV := .venv/bin/python -m
# Processes that test at once, a module each: most of the time tests wait for others to start and to end.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 22

run: ## set up what is missing and run the service on PORT (8000); Ctrl-C stops it
	@$(PYTHON) -m launch.install run
	@$(ENV) launch.service

test: ## set up what is missing and run every test; ARGS go to pytest
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest $(PARALLEL) $(ARGS)

test-faults: ## break a whole service in every way known, and print what became of the requests (4 minutes)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest --all-faults tests/faults/test_faults.py tests/faults/test_cluster.py $(ARGS)

test-soak: ## send half of what a service can do: memory, threads, connections and queues must not grow (10 minutes)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest --all-faults --timeout 1800 tests/faults/test_soak.py $(ARGS)

test-compose: dev ## run docker-compose.yml in a Docker Engine, and print what was seen (10 minutes)
	@$(ENV) tests.compose.stack

check: lint types imports ## run ruff, mypy and import-linter

lint: dev ## run ruff: style, and formatting
	@$(ENV) ruff check .
	@$(ENV) ruff format --check .

types: dev ## run mypy, strictly
	@$(ENV) mypy

imports: dev ## run import-linter: which package may import which
	@.venv/bin/lint-imports

schema: environment ## write schema.graphql anew
	@$(ENV) flask --app app schema export

bench-quality: dev ## compare translations with transformers'; DATA=pairs.tsv.gz scores them
	@.venv/bin/python benchmarks/quality.py $(DATA)

bench-engine: dev ## time the engine beside CTranslate2 and transformers; DATA=pairs.tsv.gz scores them (7 minutes)
	@$(ENV) pip install --quiet --disable-pip-version-check --constraint constraints.txt ctranslate2
	@$(ENV) benchmarks.engine $(DATA)

bench-path: dev ## measure what a request costs without a model, stage by stage (3 minutes)
	@$(ENV) benchmarks.path

bench-overload: dev ## send three times the load that the workers can bear (1 minute)
	@$(ENV) benchmarks.overload

bench-models: dev ## load a thousand models on demand in a worker that has memory for a hundred (5 minutes)
	@$(ENV) benchmarks.models

bench-observability: dev ## measure what logs, traces and metrics cost a translation (6 minutes)
	@$(ENV) benchmarks.observability

lock: ## write constraints.txt anew: the newest versions that setup.cfg allows
	@$(PYTHON) -m launch.install lock

environment: ## set up .venv with what runs the service, and nothing else
	@$(PYTHON) -m launch.install

dev: ## set up .venv with what checks, tests and benchmarks need, too
	@$(PYTHON) -m launch.install dev

clean: ## remove what was set up, what was cached and what the service stored
	@rm -rf .venv .run .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
