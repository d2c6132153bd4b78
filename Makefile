# Each target is a single command on a fresh machine: it makes the environment first where it is missing.
PYTHON ?= python3
BIN := .venv/bin
# What `make demo` needs is installed, and what the rest needs.
ENGINE := .venv/.engine
READY := .venv/.ready
# mypy reads packages where they would be installed: gem_fast with the mapped folders inside it.
TYPED := build/typed
# TensorRT's types, without TensorRT.
STUBS := build/stubs

.PHONY: demo test test-consumers test-ray test-least test-tritons lint format bench bench-full bench-report bench-gate bench-batch authors gpu-report gpu-check roofline scaling starting clean

demo: $(ENGINE)
	$(BIN)/gem-fast demo demo_output

# A worker process a core.
test: $(READY)
	$(BIN)/python -m pytest -n auto --dist worksteal

# Runtimes and tools of others on our graphs, each in a folder of its own. What the machine lacks for one, npm or Chromium, is
# told as the reason why it was skipped.
CONSUMERS := build/consumers
FOREIGN := $(patsubst tests/consumers/packages/%.txt,$(CONSUMERS)/%/.ready,$(wildcard tests/consumers/packages/*.txt))
NODE := $(CONSUMERS)/node/.ready
test-consumers: $(FOREIGN) $(if $(shell command -v npm),$(NODE))
	OMP_NUM_THREADS=2 $(BIN)/python -m pytest -rs tests/consumers/check_consumers.py

$(FOREIGN): $(CONSUMERS)/%/.ready: tests/consumers/packages/%.txt | $(READY)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --target $(@D) -r $<
	mkdir -p $(@D) && touch $@

$(NODE): tests/consumers/package.json
	rm -rf $(@D) && mkdir -p $(@D) && cp $< $(@D)
	npm install --prefix $(@D) --ignore-scripts --no-audit --no-fund --silent
	touch $@

# On a Ray of this machine, whose package is half a gigabyte.
test-ray: .venv/.ray
	$(BIN)/python -m pytest -m ray tests/batch/test_ray.py

.venv/.ray: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[ray]"
	touch $@

# The whole suite with the least versions that setup.py names, in an environment of its own.
LEAST := build/least
test-least: $(LEAST)/.ready
	$(LEAST)/bin/python -m pytest -n auto --dist worksteal

$(LEAST)/.ready: setup.py pyproject.toml | $(READY)
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/uv venv --quiet --seed --clear --python $(BIN)/python $(LEAST)
	$(BIN)/uv pip install --quiet --python $(LEAST)/bin/python --resolution lowest-direct -e ".[dev]"
	touch $@

# The kernels on older versions of Triton, from the least one on: in its interpreter, compiled, and bound to launches. The oldest
# take a numpy before 2.3, and before 3.5 code for AMD's GPUs takes LLVM's linker: TRITON_HIP_LLD_PATH names that of lld 19.
TRITONS := $(addprefix build/triton/,3.3.1 3.4.0 3.5.1 3.6.0 3.7.0 3.8.0)
test-tritons: $(addsuffix /.ready,$(TRITONS))
	for folder in $(TRITONS); do PYTHONPATH=$$folder $(BIN)/python -m pytest -n auto tests/kernels/test_triton*.py || exit; done

build/triton/%/.ready: | $(READY)
	rm -rf $(@D)
	$(BIN)/python -m pip install --quiet --no-deps --target $(@D) triton==$* "numpy<2.3"
	touch $@

lint: $(READY) $(STUBS)/tensorrt
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	mkdir -p $(TYPED)/gem_fast && ln -sfn $(CURDIR)/gem_fast/* $(CURDIR)/kernels $(CURDIR)/export $(CURDIR)/bench $(TYPED)/gem_fast
	ln -sfn $(CURDIR)/tools $(TYPED)
	cd $(TYPED) && MYPYPATH=$(CURDIR)/$(STUBS) $(CURDIR)/$(BIN)/mypy --config-file $(CURDIR)/pyproject.toml -p gem_fast -m tools.gpu_report

format: $(READY)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# Both end with a table of ratios and their noise, and write JSON that `gem-fast bench compare` and `report` read.
# What takes milliseconds is timed in three processes, minutes apart: caches and memory are another process's own.
SUITES := $(BIN)/python -m pytest --benchmark-only --benchmark-quiet
BRIEF := $(foreach name,attention decoding,bench/bench_$(name).py)
BOTH := $(BIN)/gem-fast bench --dtype float32 --dtype bfloat16
bench: $(READY) authors
	mkdir -p build/bench
	$(SUITES) $(BRIEF) -m "not full" --benchmark-json=build/bench/1.json
	$(SUITES) bench -m "not full" --benchmark-json=build/bench/2.json
	$(BOTH) --backend auto --backend sdpa --against authors --against eager --against onnx-ort --rounds 5 \
	    --json build/bench/forward.json
	$(SUITES) $(BRIEF) -m "not full" --benchmark-json=build/bench/3.json
	$(BIN)/gem-fast bench report $(foreach run,1 2 3 forward,build/bench/$(run).json) --json bench.json

bench-full: $(READY) authors
	mkdir -p build/bench-full
	$(SUITES) bench -m full --benchmark-json=build/bench-full/suites.json
	$(BIN)/gem-fast bench --against eager --against compiled --rounds 5 --json build/bench-full/compiled.json
	$(BOTH) --batch-size 4 --backend auto --backend sdpa --against authors --against eager --against onnx-ort --rounds 3 \
	    --json build/bench-full/four.json
	$(BOTH) --size 1024 --backend auto --backend sdpa --against authors --against eager --against onnx-ort --rounds 1 \
	    --json build/bench-full/1024.json
	$(BIN)/gem-fast bench report $(foreach run,suites compiled four 1024,build/bench-full/$(run).json) --json bench-full.json

# The report of the reference machine: under half an hour on 2 cores, and for nothing but it.
RUNS := build/reference
bench-report: .venv/.bench authors
	mkdir -p $(RUNS)
	$(BOTH) --batch-size 1 --batch-size 4 --backend auto --backend sdpa \
	    --against authors --against eager --against onnx-ort --against openvino --waterfall --rounds 7 --budget 30 \
	    --json $(RUNS)/448.json
	$(BOTH) --size 1024 --against authors --against onnx-ort --against openvino --rounds 3 --budget 30 \
	    --json $(RUNS)/1024.json
	$(BOTH) $(foreach side,224 336 672 896 1344 1792,--size $(side)) --rounds 5 --budget 20 --json $(RUNS)/sizes.json
	$(BIN)/gem-fast bench report $(RUNS)/448.json $(RUNS)/1024.json $(RUNS)/sizes.json --json bench/reports/reference.json \
	    --markdown bench/reports/reference.md --plots $(RUNS)
	cp $(RUNS)/waterfall.png docs/bench.png

.venv/.bench: $(READY)
	$(BIN)/python -m pip install --quiet -e ".[bench]"
	touch $@

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
	$(BIN)/python -m tools.gpu_report bench/reports

roofline: $(READY)
	$(BIN)/python -m tools.roofline bench/reports

# The better part of an hour on 2 cores that have nothing else to do; ARGS=--quick is a look at fewer images.
bench-batch: $(READY)
	$(BIN)/python -m gem_fast.bench.batch $(ARGS)

scaling: $(READY)
	$(BIN)/python -m tools.scaling

# Two minutes on 2 cores that have nothing else to do.
starting: $(READY)
	$(BIN)/python -m tools.starting
	$(BIN)/python -m tools.prompts

# `make gpu-check ARGS=--quick`; ARGS=--help lists the others.
gpu-check: $(READY)
	$(BIN)/python -m gem_fast.bench.gpu_check $(ARGS)

$(STUBS)/tensorrt: tools/tensorrt_stubs.py | $(READY)
	$(BIN)/python tools/tensorrt_stubs.py $(STUBS)

$(ENGINE): setup.py pyproject.toml $(wildcard kernels/native/* kernels/*/native/*)
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -e ".[engine]"
	touch $@

$(READY): $(ENGINE)
	$(BIN)/python -m pip install --quiet -e ".[dev]"
	touch $@

clean:
	rm -rf .venv build dist demo_output *.egg-info
