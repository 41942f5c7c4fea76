# Each target starts from nothing but Python (3.11 or newer) and a shell.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

DATA ?= data
OUTPUT ?= runs/bench

# Python keeps what it compiles: else each of the hundred processes of the tests compiles all of transformers anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: demo test test-all lint types docs wheel bench clean
.NOTPARALLEL: # they share one environment

demo: $(VENV)/.demo
	$(BIN)/gradistill demo --output runs/demo

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n logical --maxprocesses 8

test-all: $(VENV)/.dev # with the tests marked slow: before an issue is closed, and before a release
	$(BIN)/python -m pytest -n logical --maxprocesses 8 -m ""

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/codespell

types: $(VENV)/.dev
	$(BIN)/pyright --pythonpath $(BIN)/python

docs: $(VENV)/.dev # site/index.html, to be opened in a browser
	PATH=$(abspath $(BIN)):$$PATH NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

# The built wheel, installed without this folder: what others get. Packages that it needs are those of $(VENV).
wheel: $(VENV)/.dev
	rm -rf dist build/wheel
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .
	$(PYTHON) -m venv --without-pip build/wheel
	$(BIN)/python -m pip --python build/wheel/bin/python install --quiet --no-deps --no-index dist/*.whl
	$(BIN)/python -c "import sysconfig; print(sysconfig.get_path('purelib'))" \
	    > $$(build/wheel/bin/python -c "import sysconfig; print(sysconfig.get_path('purelib'))")/others.pth
	cd build/wheel && bin/python ../../tests/installed_wheel.py ../../src/gradistill && bin/gradistill --version

bench: $(VENV)/.dev # DATA=FOLDER with sst2, mrpc and snli
	PATH=$(abspath $(BIN)):$$PATH benchmarks/all.sh $(DATA) $(OUTPUT)

# pip's own folder of wheels, where it has one.
WHEELS := $(shell $(PYTHON) -m pip config list 2> /dev/null | sed -n "s/.*find-links='\([^' ]*\)'.*/\1/p" | head -n 1)

# An environment with an extra. uv takes a tenth of pip's time, and knows no settings of pip: pip takes its place where
# only pip is set up for the package index, and takes a build of torch that is at hand where that is in no folder.
$(VENV)/.%: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt uv $(if $(wildcard $(WHEELS)/torch-*.whl),,torch)
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt \
	    $(addprefix --find-links ,$(WHEELS)) --editable '.[$*]' || \
	    $(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[$*]'
	touch $@

clean:
	rm -rf $(VENV) runs build dist site src/*.egg-info
