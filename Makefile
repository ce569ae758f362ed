PYTHON ?= python3
export OMP_NUM_THREADS ?= 1
.PHONY: lint types imports suite test
lint:
	$(PYTHON) -m ruff check .
