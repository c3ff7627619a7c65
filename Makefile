# `make demo` and `make test` are all a newcomer needs; each installs what it wants into .venv first.
# CPython 3.12 and 3.11 first: for them there is the training runtime, which fine-tunes convolutions.
works = $(shell for name in $(1); do $$name -c 'import sys; assert (3, 11) <= sys.version_info < (3, 15)' 2>/dev/null && { echo $$name; break; }; done)
PYTHON := $(call works,python3.12 python3.11 python3.13 python3.14)
BIN := .venv/bin

.PHONY: demo test test-slow test-lowest test-plain wheel test-wheel fuzz lint docs bench bench-road bench-classes bench-crops bench-train bench-serve bench-scaling keras2 examples clean

demo: .venv/all
	$(BIN)/birdsonnx demo demo

# A worker for each core; the tests of a file stay together, since they share networks that Keras builds. In the
# order of the tree: by default files of few tests, which are the slow ones, would come last.
test: .venv/dev
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

# The oldest versions that pyproject.toml allows, in an environment of their own: each lower bound is one that works.
test-lowest:
	'$(PYTHON)' -m venv .venv-lowest
	.venv-lowest/bin/python -m pip install --quiet --disable-pip-version-check uv
	.venv-lowest/bin/uv pip install --quiet --python .venv-lowest/bin/python --resolution lowest-direct -e '.[all,dev]'
	PATH="$$PWD/.venv-lowest/bin:$$PATH" .venv-lowest/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder

# What needs neither the training runtime nor TensorFlow, on the newest plain onnxruntime and, where there is one, a
# Python for which the training runtime has no wheel: heads train there, and the demo walks the whole road.
PLAIN_PYTHON = $(call works,python3.14 python3.13 $(PYTHON))
test-plain:
	'$(PLAIN_PYTHON)' -m venv .venv-plain
	.venv-plain/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[mpi,plot,dev]'
	.venv-plain/bin/python -m pip uninstall --quiet --yes onnxruntime-training-cpu onnxruntime
	.venv-plain/bin/python -m pip install --quiet --disable-pip-version-check onnxruntime
	PATH="$$PWD/.venv-plain/bin:$$PATH" .venv-plain/bin/python -m pytest -n auto --dist loadfile --no-loadscope-reorder -rs \
		tests/passes tests/training tests/runtime tests/model tests/inference tests/reporting \
		tests/e2e/test_training.py tests/e2e/test_prediction.py tests/e2e/test_command_line.py tests/e2e/test_demo.py

# The wheel and the sdist, in dist/, as a package index wants them.
wheel: .venv/dev
	rm -rf dist
	$(BIN)/python -m build --outdir dist
	$(BIN)/python -m twine check --strict dist/*

# The whole road with the wheel, in an environment that holds nothing else and outside the clone.
test-wheel: wheel
	rm -rf .venv-wheel build/wheel
	'$(PYTHON)' -m venv .venv-wheel
	.venv-wheel/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt dist/*.whl
	mkdir -p build/wheel
	cd build/wheel && ../../.venv-wheel/bin/birdsonnx configs && ../../.venv-wheel/bin/birdsonnx demo

# Damaged inputs for SECONDS, from a new seed.
SECONDS ?= 600
fuzz: .venv/dev
	$(BIN)/python -m tests.hostile.fuzzing $(SECONDS)

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/python scripts/reference.py --check
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The reference of commands and config, written from the program, and all pages, in build/site.
docs: .venv/dev
	$(BIN)/python scripts/reference.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# With photos and weights of your own: make bench DATA=folder WEIGHTS=file.h5
bench: .venv/bench .venv-onnxruntime/made
	mkdir -p build
	$(BIN)/python -m benchmarks.inference $(if $(DATA),--data '$(DATA)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
		--json build/inference.json --plot build/inference.png

bench-road: .venv/all
	$(BIN)/python benchmarks/road.py

bench-classes: .venv/all
	$(BIN)/python -m benchmarks.many_classes

# make bench-crops MODELS='file.onnx file.int8.onnx'
bench-crops: .venv/all
	$(BIN)/python -m benchmarks.crops $(MODELS)

# With photos and weights of your own: make bench-train DATA=folder WEIGHTS=file.h5 OPTIONS='--groups full conv5'
bench-train: .venv/dev .venv-torch/made
	mkdir -p build
	$(BIN)/python -m benchmarks.finetune $(if $(DATA),--data '$(DATA)') $(if $(WEIGHTS),--weights '$(WEIGHTS)') \
		--torch-python .venv-torch/bin/python --gradient --json build/finetune.json $(OPTIONS)

# With photos and a ResNet50 of your own: make bench-scaling OPTIONS='--data folder --model file.onnx --quick'
bench-scaling: .venv/dev
	$(BIN)/python -m benchmarks.scaling $(OPTIONS)

# make bench-serve MODEL=file.onnx DATA=folder
bench-serve: .venv/dev
	$(BIN)/python -m benchmarks.serving --model '$(MODEL)' --data '$(DATA)'

# Files as Keras 2 wrote them, with its own answers, in build/: what the slow tests of the reader want.
keras2:
	scripts/keras2 python3.11 2.15.1
	scripts/keras2 python3.11 2.12.1

# What the programs of examples/ need of npm. No lock files: they would name a registry.
examples:
	cd examples/node && npm install --no-audit --no-fund
	cd examples/browser && npm install --no-audit --no-fund

clean:
	rm -rf .venv .venv-lowest .venv-plain .venv-wheel .venv-onnxruntime .venv-torch demo build dist examples/*/node_modules examples/browser/dist

.venv/all: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' all

.venv/bench: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' bench
	touch .venv/all

.venv/dev: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' all,dev
	touch .venv/all

# PyTorch in a folder of its own: where it is installed, the runtime's training wheel imports it.
.venv-torch/made:
	'$(PYTHON)' -m venv .venv-torch
	.venv-torch/bin/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch onnx numpy Pillow
	touch $@

# The newest plain onnxruntime must not share a folder with the training wheel, and is deliberately not pinned.
.venv-onnxruntime/made:
	'$(PYTHON)' -m venv .venv-onnxruntime
	.venv-onnxruntime/bin/python -m pip install --quiet --disable-pip-version-check onnxruntime numpy
	touch $@
