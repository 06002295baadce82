# Everything sets itself up in .venv; only Python 3.11+ and make are needed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
# The demonstration needs no tools for development, but is content with an environment that has them.
DEMO_READY := $(if $(wildcard $(READY)),$(READY),$(VENV)/.demo)
GPU_VENV := .venv-gpu
GPU_BIN := $(GPU_VENV)/bin
GPU_READY := $(GPU_VENV)/.ready
PROTOS := $(wildcard proto/engine/v1/*.proto)
GENERATED := clients/python/engine_client/v1
ARGS ?=
# Further options for pip, such as another index.
PIP_ARGS ?=
comma := ,
# An editable install warns of folders that are named as the package is; here the package is that folder.
PIP_INSTALL = PYTHONWARNINGS='ignore:Editable installation' $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt $(PIP_ARGS)
# Pip is told to be quiet, since it would name every package; what takes so long is said here.
define install
echo "Installing into $(VENV): up to 6 GB and some 4 minutes, most of it PyTorch with CUDA." \
	"The README says how to do with less." && \
$(PYTHON) -m venv $(VENV) && $(PIP_INSTALL) pip && $(PIP_INSTALL) --editable ./clients/python --editable '.[$(1)]' \
	--editable ./bench
endef
# Test processes: each trains its own small bundle and starts its own servers, about 1.5 GB in all.
JOBS ?= 2
# What bench-compare holds this checkout against, and by how many percent a median may be longer than there.
BASELINE ?= .benchmarks/bench.json
THRESHOLD ?= 25
# Of the local broker. The tests that meet a broker are those that use tests/kafka.py, or a fixture that does; what
# test_bounds tries, the broker has no say in.
KAFKA_VERSION ?= 4.3.1
KAFKA_TESTS = $(shell grep -rlE "from tests.kafka import|bus: Bus|local_kafka" tests --include="test_*.py" \
	--exclude=test_bounds.py | sort)
# The benchmarks to run: a folder, a file, or several.
BENCHES ?= bench

.DEFAULT_GOAL := help
.PHONY: help demo test test-clients test-gpu kafka test-kafka lint proto bench bench-compare bench-load bench-peers bench-startup bench-gpu report
.PHONY: validate-deploy rehearse clean

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

$(READY): pyproject.toml bench/pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(call install,cpu$(comma)train$(comma)dev)
	@touch $@

ifneq ($(DEMO_READY),$(READY))
$(DEMO_READY): pyproject.toml bench/pyproject.toml clients/python/pyproject.toml constraints.txt
	@$(call install,cpu$(comma)train$(comma)analysis)
	@touch $@
endif

# PyTorch asks for older CUDA libraries than the gpu extra, and works with these: it is installed without asking. What
# it needs beside them is named here. pip below 24 cannot read the extra's pins.
TORCH_NEEDS := filelock fsspec jinja2 networkx sympy nvidia-cuda-cupti nvidia-cufile nvidia-cusparselt-cu13 \
	nvidia-nvshmem-cu13 nvidia-nvtx
GPU_PIP = PYTHONWARNINGS='ignore:Editable installation' $(GPU_BIN)/python -m pip install --quiet --disable-pip-version-check $(PIP_ARGS)

$(GPU_READY): pyproject.toml bench/pyproject.toml clients/python/pyproject.toml constraints.txt constraints-gpu.txt
	@echo "Installing into $(GPU_VENV): some 10 GB with CUDA, ten minutes"
	$(PYTHON) -m venv $(GPU_VENV)
	$(GPU_PIP) --upgrade 'pip>=24'
	$(GPU_PIP) --constraint constraints.txt --constraint constraints-gpu.txt \
		--editable ./clients/python --editable '.[gpu,train-without-torch,dev]' --editable ./bench $(TORCH_NEEDS)
	$(GPU_PIP) --constraint constraints.txt --no-deps torch
	touch $@

demo: $(DEMO_READY) ## Train, publish, serve and call the engine: make demo ARGS="--once"
	$(BIN)/engine demo $(ARGS)

# The order of files is that of tests/order.py. Tests start the engine some hundred times: what the first process has
# compiled, the others read, whatever the environment says.
test: export PYTHONDONTWRITEBYTECODE :=
test: $(READY) ## Run the tests: make test ARGS="-k mmr" JOBS=4
	$(BIN)/python -m pytest --numprocesses $(JOBS) --dist loadfile --no-loadscope-reorder $(ARGS)

test-gpu: $(GPU_READY) ## Run the tests that need a CUDA device
	$(GPU_BIN)/python -m pytest -m gpu tests/contracts tests/engine/adapters tests/engine/test_device.py $(ARGS)

kafka: $(READY) ## Run a real Kafka broker on a free port until Ctrl-C (java, mvn): make kafka KAFKA_VERSION=3.9.1
	$(BIN)/python -m deploy.local_kafka --version $(KAFKA_VERSION) $(ARGS)

test-kafka: $(READY) ## Run every test that meets a broker on a real Kafka, none skipped: make test-kafka KAFKA_VERSION=3.9.1
	$(BIN)/python -m deploy.local_kafka --version $(KAFKA_VERSION) -- \
		$(BIN)/python -m pytest -p tests.refuse_skips $(KAFKA_TESTS) $(ARGS)

test-clients: $(READY) ## Generate and call from Go, Java and TypeScript, with ghz, buf and grpcurl, as far as they are here
	tests/clients/install.sh .clients
	$(BIN)/python -m pytest tests/clients $(ARGS)

lint: $(READY) ## Check style, types, layers and that the generated code is current
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache
	$(MAKE) --no-print-directory proto
	git diff --exit-code -- $(GENERATED) && test -z "$$(git status --porcelain -- $(GENERATED))"

proto: $(READY) ## Regenerate the gRPC code from proto/
	@# protoc names Python modules by the folders of proto/; here they are in the client's package.
	work=$$(mktemp -d) && trap 'rm -r "$$work"' EXIT && \
	$(BIN)/python -m grpc_tools.protoc -I proto --python_out="$$work" --pyi_out="$$work" --grpc_python_out="$$work" \
		$(PROTOS) && \
	for file in "$$work"/engine/v1/*; do \
		sed -E -e 's/^from engine\.v1 import/from engine_client.v1 import/' \
			-e 's#engine([./])v1([./][a-z]+_pb2)#engine_client\1v1\2#g' "$$file" > $(GENERATED)/$${file##*/} || exit 1; \
	done

bench: $(READY) ## Measure kernels, stages and requests: BENCH_ITEMS=100000 make bench ARGS="-k mmr"
	mkdir -p .benchmarks
	$(BIN)/python -m pytest $(BENCHES) --benchmark-only --benchmark-json .benchmarks/bench.json $(ARGS)

bench-compare: $(READY) ## Fail where a median is THRESHOLD % longer than in BASELINE (what make bench wrote last)
	@test -f "$(BASELINE)" || { echo "there is no $(BASELINE): make bench writes it, or BASELINE=file names another"; exit 2; }
	$(BIN)/python -m pytest $(BENCHES) --benchmark-only --benchmark-compare "$(BASELINE)" \
		--benchmark-compare-fail "median:$(THRESHOLD)%" $(ARGS)

bench-load: $(READY) ## Find the highest rate that one server bears: make bench-load ARGS="--items 100000"
	mkdir -p .benchmarks
	$(BIN)/engine bench load --json .benchmarks/load.json $(ARGS)

bench-peers: $(READY) ## Measure peers beside the engine: make bench-peers ARGS="--items 100000"
	$(PIP_INSTALL) --editable ./clients/python --editable '.[cpu,train,dev]' --editable './bench[peers]'
	$(BIN)/engine bench peers --json .benchmarks/peers.json $(ARGS)

bench-startup: $(READY) ## Time the start of a server and weigh its memory: make bench-startup ARGS="--items 100000"
	mkdir -p .benchmarks
	$(BIN)/engine bench startup --json .benchmarks/startup.json $(ARGS)

report: $(READY) ## Make .benchmarks/report.html from what was measured: make report ARGS="--markdown"
	$(BIN)/engine bench report $(ARGS)

bench-gpu: $(GPU_READY) ## Check and measure the GPU path: make bench-gpu ARGS="--items 1000000"
	@mkdir -p .benchmarks
	$(GPU_BIN)/engine bench gpu --json .benchmarks/gpu.json $(ARGS)

validate-deploy: $(READY) ## Hold images, Compose, Kubernetes, dashboards and alerts against their schemas and the engine
	$(BIN)/python -m pytest tests/deploy $(ARGS)

rehearse: $(READY) ## Install and run what an image holds without Docker: make rehearse ARGS=Dockerfile.gpu
	PYTHON=$(PYTHON) deploy/rehearse.sh $(ARGS)

clean: ## Remove the environment and everything that commands left behind
	rm -rf $(VENV) $(GPU_VENV) var .benchmarks .clients .pytest_cache .mypy_cache .ruff_cache .hypothesis
