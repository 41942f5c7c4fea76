# Each target starts from nothing but Python (3.11 or newer) and a shell.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

DATA ?= data
OUTPUT ?= runs/bench

.PHONY: demo test lint types docs bench clean
.NOTPARALLEL: # they share one environment

demo: $(VENV)/.demo
	$(BIN)/gradistill demo --output runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.dev # site/index.html; to search in it, $(BIN)/python -m http.server --directory site
	PATH=$(abspath $(BIN)):$$PATH NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

bench: $(VENV)/.dev # DATA=FOLDER with sst2, mrpc and snli
	PATH=$(abspath $(BIN)):$$PATH benchmarks/all.sh $(DATA) $(OUTPUT)

$(VENV)/.%: pyproject.toml constraints.txt # installed with an extra
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist site src/*.egg-info
