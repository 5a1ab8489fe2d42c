# Every target but `clean` installs what it needs first; `make demo` and `make test` can be the first thing you type.
# A machine without a GPU needs only the small build of PyTorch:
#   make install PIP_FLAGS="--extra-index-url https://download.pytorch.org/whl/cpu"

PYTHON ?= python3
PIP_FLAGS ?=
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow lint check format bench docs wheel clean

install: $(INSTALLED)

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt $(PIP_FLAGS) --editable ".[dev]"
	touch $@

demo: $(INSTALLED)
	$(BIN)/refnet demo --out demo

# two processes of one thread each: tiny models gain nothing from more
test: $(INSTALLED)
	$(BIN)/python -m pytest -m "not slow and not browser" -n 2 --dist worksteal

test-slow: $(INSTALLED)
	$(BIN)/python -m pytest -m "slow and not browser" -n 2 --dist worksteal

lint: $(INSTALLED)
	$(BIN)/ruff format --check src tests benchmarks examples
	$(BIN)/ruff check src tests benchmarks examples
	$(BIN)/pyright

# all that is known without running a network: what to type before a commit
check: lint docs
	$(BIN)/python -m pytest -q tests/house

format: $(INSTALLED)
	$(BIN)/ruff format src tests benchmarks examples
	$(BIN)/ruff check --fix src tests benchmarks examples

bench: $(INSTALLED)
	$(BIN)/python benchmarks/reference_only.py
	$(BIN)/refnet benchmark builtin

docs: $(INSTALLED)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

wheel: $(INSTALLED)
	$(BIN)/python -m pip wheel --quiet --no-deps --wheel-dir dist .

clean:
	rm -rf $(VENV) build dist site demo .pytest_cache .ruff_cache .hypothesis
