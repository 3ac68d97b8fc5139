# Everything a newcomer types. Each target installs what it needs; only Python 3.11+, make and a package registry are assumed.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: setup demo demo-stop test soak lint types bench docs clean

setup: $(READY)

$(READY): pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Lambstead needs Python 3.11 or newer; set PYTHON=/path/to/python3.11")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $(READY)

demo: $(READY)
	$(BIN)/python examples/demo.py start

demo-stop: $(READY)
	$(BIN)/python examples/demo.py stop

test: $(READY)
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# A thousand durable executions while server, agents and workers are killed two hundred times: about six minutes on two quiet cores.
soak: $(READY)
	LAMBSTEAD_SOAK=1 $(BIN)/python -m pytest -s --timeout 3600 -k thousand tests/faults/test_durable_chaos.py

lint: $(READY)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: $(READY)
	$(BIN)/mypy

bench: $(READY)
	$(BIN)/python -m bench.invoke
	$(BIN)/python -m bench.durable

docs: $(READY)
	$(BIN)/python -m tests.operations_page
	$(BIN)/python -m pytest -q tests/test_docs.py

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
