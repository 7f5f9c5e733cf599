# `make demo` and `make test` set up .venv by themselves; everything else builds on it.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

.PHONY: demo test lint types imports docs wheel smoke smoke-lowest bench bench-anomaly image-models figures continuous-figures stress fuzz check clean help

help: ## List the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(None if sys.version_info >= (3, 11) else "pushforward needs Python 3.11 or later, found " + sys.version.split()[0] + "; name another one with make PYTHON=python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	@touch $(STAMP)

demo: $(STAMP) ## Run the demonstration: demo/index.html
	$(BIN)/pushforward demo -o demo

test: $(STAMP) ## Run all tests and doctests
	$(BIN)/python -m pytest -q -n 2

lint: $(STAMP) ## Check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP) ## Check types strictly
	$(BIN)/mypy

imports: $(STAMP) ## Check that imports run downwards only
	$(BIN)/lint-imports

# Not --quiet: that would drop the warnings before --strict counts them.
docs: $(STAMP) ## Build the documentation strictly: site/index.html
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(STAMP) ## Build the wheel: dist/
	rm -rf dist
	$(BIN)/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

# The wheel alone, in an environment of its own, away from the sources.
smoke: wheel ## Try the wheel with the pinned versions
	$(call try_wheel,constraints.txt)

smoke-lowest: wheel ## Try the wheel with the lowest versions allowed; downloads some 3 GB
	$(call try_wheel,constraints-lowest.txt)

define try_wheel
	set -e; place=$$(mktemp -d); trap 'rm -rf "$$place"' EXIT; \
	$(PYTHON) -m venv "$$place/venv"; \
	"$$place/venv/bin/python" -m pip install --quiet --constraint $(1) dist/*.whl; \
	cp tests/smoke/smoke.py "$$place"; cd "$$place"; venv/bin/python smoke.py
endef

SECONDS ?= 600

BENCH_TORCH := .venv-bench
BENCH_JAX := .venv-bench-jax

# torchcfm without what only its examples need, torchdyn and pandas.
$(BENCH_TORCH)/.installed: pyproject.toml benchmarks/constraints-torch.txt
	$(PYTHON) -m venv $(BENCH_TORCH)
	$(BENCH_TORCH)/bin/python -m pip install --quiet --constraint benchmarks/constraints-torch.txt \
		--editable . zuko nflows normflows FrEIA torchdiffeq POT pyod
	$(BENCH_TORCH)/bin/python -m pip install --quiet --constraint benchmarks/constraints-torch.txt --no-deps \
		torchcfm flow_matching
	@touch $@

$(BENCH_JAX)/.installed: benchmarks/constraints-jax.txt
	$(PYTHON) -m venv $(BENCH_JAX)
	$(BENCH_JAX)/bin/python -m pip install --quiet --constraint benchmarks/constraints-jax.txt jax flowjax bijx
	@touch $@

bench: $(BENCH_TORCH)/.installed $(BENCH_JAX)/.installed ## Time it beside its peers, on an idle machine, in 20 minutes
	$(BENCH_TORCH)/bin/python -m benchmarks.speed \
		--output benchmarks/results/cpu-2-threads.json --chart docs/images/speed.png
	$(BENCH_TORCH)/bin/python -m benchmarks.continuous --output benchmarks/results/continuous.json

ADBENCH ?= adbench

bench-anomaly: $(BENCH_TORCH)/.installed ## Detect anomalies beside PyOD, in an hour; ADBENCH=folder of ADBench's tables
	OMP_NUM_THREADS=1 $(BENCH_TORCH)/bin/python -m benchmarks.anomaly $(ADBENCH)

MODELS ?= benchmarks/models

image-models: $(STAMP) ## Train the models of images on MNIST and Fashion-MNIST, in 2 hours
	$(BIN)/python -m benchmarks.image_models --folder $(MODELS)

figures: $(STAMP) ## Draw the pictures of images in the documentation, from the models of image-models
	$(BIN)/python -m benchmarks.image_figures --folder $(MODELS) --output docs/images

continuous-figures: $(STAMP) ## Measure and draw the pictures of continuous flows in the documentation
	$(BIN)/python -m benchmarks.flow_matching_curve --seeds 1 --figure docs/images/flow-matching-steps.png
	$(BIN)/python -m benchmarks.topology --parts ab --steps 400 --batch 128 --seeds 2 \
		--figure docs/images/topology.png

stress: $(STAMP) ## Kill 200 fits at random moments and resume them
	OMP_NUM_THREADS=1 $(BIN)/python tests/stress/killed_fits.py --kills 200

fuzz: $(STAMP) ## Fuzz the readers of saved flows and tables, SECONDS=600 in all
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,fuzz]'
	$(BIN)/python fuzz/model_file.py $$(($(SECONDS) / 2))
	$(BIN)/python fuzz/readers.py $$(($(SECONDS) / 2))

check: lint types imports docs test ## All of the above but the smoke tests, the benchmarks and the fuzzing

clean: ## Remove what the targets made
	rm -rf $(VENV) $(BENCH_TORCH) $(BENCH_JAX) demo site build dist .mypy_cache .pytest_cache .ruff_cache
