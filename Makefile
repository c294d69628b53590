# One-word commands. `make run` and `make test` set up everything they need by themselves.
.DEFAULT_GOAL := help
SHELL := /usr/bin/env bash
export DAGSTER_HOME := $(CURDIR)
bin := .venv/bin

.PHONY: help setup run ui test test-all check format lock sample clean

help:  ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "%-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup:  ## .venv, Java, Delta's JARs, the archive of Spark's classes
	@tools/setup.sh

run: setup  ## the whole graph on the sample catalogue
	@$(bin)/sid run

ui: setup  ## the Dagster web UI on localhost:3000
	@$(bin)/sid ui

check: setup  ## linter and type checker
	@$(bin)/ruff check .
	@$(bin)/ruff format --check .
	@$(bin)/mypy sid_pipeline

test: check  ## check, then the tests (minutes)
	@$(bin)/pytest -n 2 --dist loadfile --no-loadscope-reorder -m "not slow"

test-all: check  ## everything, the slow tests too
	@$(bin)/pytest

format: setup  ## format the code
	@$(bin)/ruff check --fix --quiet . ; $(bin)/ruff format .

lock: setup  ## resolve the dependencies again
	@$(bin)/uv pip compile --quiet --universal --python-version 3.10 --generate-hashes --no-emit-index-url \
	  --extra dev --extra production --custom-compile-command "make lock" pyproject.toml --upgrade --output-file requirements.lock

sample: setup  ## make the committed sample data again
	@$(bin)/python -m sid_pipeline.sample data

clean:  ## remove all state (tables, artefacts, Dagster's history), keep .venv
	rm -rf .sid
