# `make demo` and `make test` are all a newcomer needs; each installs what it wants into .venv first.
PYTHON := $(shell for name in python3.12 python3.11; do $$name -c 'import sys; assert sys.version_info[:2] in ((3, 11), (3, 12))' 2>/dev/null && { echo $$name; break; }; done)
BIN := .venv/bin

.PHONY: demo test test-slow lint bench bench-train clean

demo: .venv/all
	$(BIN)/birdsonnx demo demo

test: .venv/dev
	$(BIN)/python -m pytest

test-slow: .venv/dev
	$(BIN)/python -m pytest -m slow

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

bench: .venv/all
	$(BIN)/python benchmarks/road.py

bench-train: .venv/bench
	$(BIN)/python benchmarks/finetune.py

clean:
	rm -rf .venv demo build dist

.venv/all: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' all

.venv/bench: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' bench
	touch .venv/all

.venv/dev: pyproject.toml constraints.txt
	scripts/install '$(PYTHON)' all,dev
	touch .venv/all
