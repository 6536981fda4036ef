.DEFAULT_GOAL := help
.PHONY: help run test test-long test-faults test-soak test-clients test-compose check lint types imports sbom schema
.PHONY: bench-service bench-quality bench-engine bench-training bench-path bench-overload bench-fairness bench-scaling
.PHONY: bench-models bench-observability bench-jobs bench-listeners bench-fidelity
.PHONY: lock environment dev clean
MAKEFLAGS += --no-print-directory

PYTHON ?= python3
ENV := .venv/bin/python -m
# One test process for each core, at most 4, each with whole modules: most tests wait for services to start and to end.
PARALLEL := --numprocesses logical --maxprocesses 4 --dist loadfile

help: ## list the targets
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 22

run: ## install what is missing and run the service on PORT (8000); Ctrl-C stops it
	@$(PYTHON) -m launch.install run
	@$(ENV) launch.service

test: ## install what is missing and run all tests; ARGS go to pytest
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest $(PARALLEL) $(ARGS)

test-faults: ## cause every kind of fault in a running service and print the outcome of the requests (5 minutes)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest --all-faults tests/faults/test_faults.py tests/faults/test_jobs.py tests/faults/test_cluster.py $(ARGS)

test-long: ## run the tests that are too long for `make test`, but for faults and the soak (5 minutes)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest $(PARALLEL) --all-faults -m long --ignore tests/faults $(ARGS)

test-soak: ## run a service at half its capacity: memory, threads, connections and queues must not grow (10 minutes)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest --all-faults --timeout 1800 tests/faults/test_soak.py $(ARGS)

test-clients: ## check subscriptions with their npm client, graphql-sse; needs Node and npm (half a minute)
	@$(PYTHON) -m launch.install test
	@$(ENV) pytest tests/clients/graphql_sse.py $(ARGS)

test-compose: dev ## run docker-compose.yml in a Docker Engine, check it and print the results (10 minutes)
	@$(ENV) tests.compose.stack

check: lint types imports ## run ruff, mypy and import-linter

lint: dev ## run ruff: lint rules and formatting
	@$(ENV) ruff check .
	@$(ENV) ruff format --check .

types: dev ## run mypy in strict mode
	@$(ENV) mypy

imports: dev ## run import-linter: the rules of which package may import which
	@.venv/bin/lint-imports

sbom: dev ## list what each image holds, with licences, in sbom/ (CycloneDX); fails if compose/licenses.toml lacks one
	@.venv/bin/python compose/sbom.py sbom

schema: environment ## regenerate schema.graphql
	@$(ENV) flask --app app schema export

bench-service: dev ## compare the whole service with FastAPI, LibreTranslate and Ray Serve (30 minutes, 2 GB of packages)
	@$(ENV) benchmarks.service $(DATA)

bench-quality: dev ## compare translations with those of transformers; DATA=pairs.tsv.gz also scores them
	@.venv/bin/python benchmarks/quality.py $(DATA)

bench-engine: dev ## compare the engine with CTranslate2 and transformers; DATA=pairs.tsv.gz also scores (7 minutes)
	@$(ENV) benchmarks.engine $(DATA)

bench-training: dev ## measure the cost of a training step, and of its products alone (half a minute)
	@$(ENV) benchmarks.training

bench-path: dev ## measure the cost of each stage of a request without a model (3 minutes)
	@$(ENV) benchmarks.path

bench-overload: dev ## send up to three times the load that the workers can serve (1 minute)
	@$(ENV) benchmarks.overload

bench-fairness: dev ## measure what one flooding caller does to twenty small ones (5 minutes)
	@$(ENV) benchmarks.fairness

bench-jobs: dev ## measure jobs: throughput, memory, interactive requests beside them, two callers (10 minutes)
	@$(ENV) benchmarks.jobs

bench-scaling: dev ## measure how requests a second grow with the number of workers (1 minute)
	@$(ENV) benchmarks.scaling

bench-listeners: dev ## measure what a thousand listeners to jobs cost the web tier (half a minute)
	@$(ENV) benchmarks.listeners

bench-models: dev ## use a thousand models on demand in a worker that has memory for a hundred (5 minutes)
	@$(ENV) benchmarks.models

bench-fidelity: dev ## measure what comes through: holds and numbers; DATA=pairs.tsv.gz adds more (2 minutes)
	@$(ENV) benchmarks.fidelity $(DATA)

bench-observability: dev ## measure the cost of logs, traces and metrics per translation (6 minutes)
	@$(ENV) benchmarks.observability

lock: ## regenerate constraints.txt with the newest versions that setup.cfg allows
	@$(PYTHON) -m launch.install lock

environment: ## install .venv with the packages that run the service
	@$(PYTHON) -m launch.install

dev: ## install .venv with the packages of the service, the checks, the tests and the benchmarks
	@$(PYTHON) -m launch.install dev

clean: ## remove .venv, all caches, and the data of the service
	@rm -rf .venv .run tests/clients/node_modules .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis *.egg-info
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
