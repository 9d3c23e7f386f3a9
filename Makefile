# daemun's commands. `make run` and `make test` do all their set-up; nothing needs to be activated.
# DEVICE=gpu installs and uses the GPU builds of torch and vLLM.
DEVICE ?= cpu
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help run test fuzz kill-ledger check bench-gateway bench-overload bench-allocation bench-autoscale demo-eval demo-train lock clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-14s %s\n", $$1, $$2}'

run: ## start the models and the gateway, print a key and a line to try; Ctrl-C ends everything
	@scripts/setup serving-$(DEVICE)
	@scripts/compile
	@exec .venv/bin/daemun up

test: ## everything, end-to-end tests against real Ray Serve and vLLM included; then the gateway's once more as plain Python
	@scripts/setup dev-$(DEVICE)
	@scripts/check
	@scripts/compile
	@.venv/bin/python -m pytest $(ARGS)
	@$(if $(ARGS),,DAEMUN_COMPILED=no .venv/bin/python -m pytest -q tests/unit/gateway tests/contract tests/fuzz)

CASES ?= 100000
fuzz: ## bad input of every kind, CASES=100000 of them or more (about 15 minutes); what fails is tried first the next time
	@scripts/setup dev-$(DEVICE)
	@scripts/compile
	@FUZZ_CASES=$(CASES) exec .venv/bin/python -m pytest -s -p no:schemathesis tests/fuzz $(ARGS)

KILLS ?= 1000
kill-ledger: ## gateways and movers killed at KILLS=1000 random moments (about 15 minutes); every acknowledged entry must be there once
	@scripts/setup dev-$(DEVICE)
	@LEDGER_KILLS=$(KILLS) exec .venv/bin/python -m pytest tests/integration/gateway/test_ledger_kills.py $(ARGS)

check: ## the fast gate: format, lint, types, import contracts
	@scripts/setup dev-$(DEVICE)
	@scripts/check

bench-gateway: ## the gateway against vllm-router, smg and LiteLLM, 12 minutes; writes docs/benchmarks.md
	@scripts/setup serving-$(DEVICE)
	@scripts/compile
	@scripts/debian-packages bench-gateway
	@scripts/peers
	@exec .venv/bin/python -m benchmarks.gateway $(ARGS)

bench-overload: ## overload, noisy neighbours and a launch day in virtual time; then real gateways, LiteLLM too; 20 minutes
	@scripts/setup serving-$(DEVICE)
	@scripts/compile
	@scripts/debian-packages bench-gateway
	@scripts/peers
	@failed=0; .venv/bin/python -m benchmarks.overload || failed=1; .venv/bin/python -m benchmarks.overload.http $(ARGS) || failed=1; exit $$failed

bench-allocation: ## plans for a national fleet of 10,000 GPUs: times, stability, reservations; half a minute
	@scripts/setup dev-$(DEVICE)
	@exec .venv/bin/python -m benchmarks.allocation $(ARGS)

bench-autoscale: ## replicas by daemun's policy, Ray Serve's default, KEDA's and an oracle, in the simulator; 40 minutes of processor time
	@scripts/setup serving-$(DEVICE)
	@exec .venv/bin/python -m benchmarks.autoscale $(ARGS)

demo-eval: ## ask the real server the demo model's questions, trained and held out
	@scripts/setup serving-$(DEVICE)
	@scripts/compile
	@exec .venv/bin/daemun up -- .venv/bin/python -m serving.demo.evaluate $(ARGS)

demo-train: ## train the demo model anew from its corpus (seeded)
	@scripts/setup serving-$(DEVICE)
	@OMP_WAIT_POLICY=passive exec .venv/bin/python -m serving.demo.train $(ARGS)

lock: ## resolve pyproject.toml anew into locks/
	@scripts/lock $(ARGS)

clean: ## remove the environment and all state, keys and ledger included
	rm -rf .venv .daemun gateway/_builds .mypy_cache .ruff_cache .pytest_cache .hypothesis
