# Everything lives in .venv; `make` with any target installs it first, once, and again when the pins change.

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3)
TEST_PROCESSES ?= 2
EXTRAS := analyze,demo,dev,evaluate,heif,jpegxl,sd21,train

# Tests and demo run several processes on few cores: a thread that waits must not spin on a core that another needs.
test gpu-test demo: export OMP_WAIT_POLICY := PASSIVE

.DEFAULT_GOAL := help
.PHONY: help install demo test gpu-test check format bench constraints clean

help:  ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  %-12s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(STAMP)  ## Install the project and all it needs into .venv

demo: $(STAMP)  ## Compress, query and decode real photographs; writes demo-output/index.html
	$(BIN)/python -m demo

test: $(STAMP)  ## Run all tests, in TEST_PROCESSES=2 processes (those that need a GPU skip themselves without one)
	$(BIN)/python -m pytest --numprocesses $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder

gpu-test: $(STAMP)  ## Run only the tests that need a GPU
	$(BIN)/python -m pytest -m gpu $$(grep -rl 'mark\.gpu' tests)

check: $(STAMP)  ## Formatting, lint and strict types
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(STAMP)  ## Format the code and mend what the linter can mend
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: $(STAMP)  ## Print speed and memory of codec and pipeline as JSON
	$(BIN)/python -m benchmarks.codec
	$(BIN)/python -m benchmarks.pipeline
	$(BIN)/python -m benchmarks.large_image

constraints: $(BIN)/uv  ## Resolve the pins in constraints.txt anew
	$(BIN)/uv pip compile --quiet --upgrade --all-extras --python-version 3.11 \
		--no-header --no-annotate --no-emit-index-url pyproject.toml --output-file constraints.txt

clean:  ## Remove .venv, caches and what the demo wrote
	rm -rf $(VENV) demo-output build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

$(BIN)/uv: constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
		{ echo "difficmh needs Python 3.11 or newer; name one with: make PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
		{ echo "$(PYTHON) cannot make virtual environments; on Debian and Ubuntu: apt-get install python3-venv"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt uv
	@touch $@

# editable_mode=compat: by default Python started beside a clone called difficmh takes that folder for the package.
$(STAMP): $(BIN)/uv pyproject.toml constraints.txt
	$(BIN)/uv pip install --quiet --python $(BIN)/python --constraint constraints.txt --config-settings editable_mode=compat --editable '.[$(EXTRAS)]'
	@touch $@
