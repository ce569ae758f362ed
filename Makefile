# Everything a clone needs: each target makes the environment in .venv first, if it is not there.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
EXTRAS ?= dev
PAPERS ?=
PROFILE ?= quick
export OMP_NUM_THREADS ?= 1

.PHONY: help install demo test lint types imports suite bench results clean
help:
	@echo "make demo      check SIREN's claims on a photograph and write a report to look at (a few minutes)"
	@echo "make test      lint, types, the import contract and the whole suite"
	@echo "make bench     speed and memory against what one would otherwise use"
	@echo "make results   re-run the quick claims (PAPERS=\"siren …\", PROFILE=full) and rewrite RESULTS.md"

install: $(VENV)/.installed-$(EXTRAS)
$(VENV)/.installed-%: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.$(if $(filter-out base,$*),[$*])'
	touch $@

demo:
	$(MAKE) install EXTRAS=base
	$(BIN)/python tools/demo.py

test: lint types imports suite
lint: install
	$(BIN)/ruff check .
types: install
	$(BIN)/mypy
imports: install
	$(BIN)/lint-imports
suite: install
	$(BIN)/python -m pytest -n 2 --dist worksteal

bench: EXTRAS = dev,bench
bench:
	$(MAKE) install EXTRAS=$(EXTRAS)
	$(BIN)/python -m benchmarks

results: install
	$(BIN)/python tools/results.py $(PAPERS) --profile $(PROFILE)

clean:
	rm -rf $(VENV) build dist demo
