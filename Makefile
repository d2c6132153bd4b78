# Each target is a single command on a fresh machine: it makes the environment first where it is missing.
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready
# mypy reads packages where they would be installed: gem_fast with the mapped folders inside it.
TYPED := build/typed
# TensorRT's types, without TensorRT.
STUBS := build/stubs

.PHONY: demo test lint format bench bench-gate authors gpu-report gpu-check roofline rates scaling clean

demo: $(READY)
	$(BIN)/python -m gem_fast.demo demo_output

test: $(READY)
	$(BIN)/python -m pytest

lint: $(READY) $(STUBS)/tensorrt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(TYPED)/gem_fast && ln -sfn $(CURDIR)/gem_fast/* $(CURDIR)/kernels $(CURDIR)/export $(CURDIR)/bench $(TYPED)/gem_fast
	cd $(TYPED) && MYPYPATH=$(CURDIR)/$(STUBS) $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p gem_fast

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: $(READY)
	$(BIN)/python -m pytest bench --benchmark-only --benchmark-json=bench.json

# BASE: commit, branch or tag that the working tree must not be slower than.
bench-gate: $(READY)
	$(BIN)/python -m gem_fast.bench.gate $(if $(BASE),--base $(BASE)) --json build/gate/gate.json

# The authors' package with the open_clip that it needs, in a folder of its own: benchmarks run it beside the engine.
AUTHORS := build/authors
authors: $(AUTHORS)/.ready

$(AUTHORS)/.ready: $(READY) bench/authors.txt
	rm -rf $(AUTHORS)
	$(BIN)/python -m pip install --quiet --no-deps --target $(AUTHORS) -r bench/authors.txt
	touch $@

gpu-report: $(READY)
	$(BIN)/python -m gem_fast.bench.gpu_report bench/reports

roofline: $(READY)
	$(BIN)/python -m gem_fast.bench.roofline bench/reports
	$(BIN)/python -m gem_fast.bench.exponential bench/reports

# Measured on this machine, for `make scaling`.
rates: $(READY)
	$(BIN)/python -m gem_fast.bench.scaling.rates bench/reports

scaling: $(READY)
	$(BIN)/python -m gem_fast.bench.scaling bench/reports

# `make gpu-check ARGS=--quick`; ARGS=--help lists the others.
gpu-check: $(READY)
	$(BIN)/python -m gem_fast.bench.gpu_check $(ARGS)

$(STUBS)/tensorrt: tools/tensorrt_stubs.py | $(READY)
	$(BIN)/python tools/tensorrt_stubs.py $(STUBS)

$(READY): setup.py pyproject.toml $(wildcard kernels/native/* kernels/*/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist demo_output *.egg-info
