# make demo    every model of the catalogue, ours beside the published values
# make test    the tests
# make check   formatting, lint, types
# make bench   the benchmarks
# make clean   remove the environment and everything generated
#
# Each builds .venv when it is missing, or when pyproject.toml or
# constraints.txt has changed.  Name a Python with `make PYTHON=... test`.

.DELETE_ON_ERROR:
.PHONY: help demo test check bench setup clean

BIN   := .venv/bin
STAMP := .venv/.complete
PIP   := $(BIN)/python -m pip install -qq --disable-pip-version-check --no-input \
         --no-warn-script-location --constraint constraints.txt

# Options for pytest, for instance: make test ARGS="-m 'not slow' -x"
ARGS ?=

help:
	@sed -n 's/^# \{0,1\}//; /^$$/q; p' Makefile

demo: $(STAMP)
	@$(BIN)/bayesglmm run --all

test: $(STAMP)
	@$(BIN)/python -m pytest $(ARGS)

check: $(STAMP)
	@$(BIN)/ruff format --check
	@$(BIN)/ruff check
	@$(BIN)/mypy

bench: $(STAMP)
	@$(BIN)/python -m benchmarks $(ARGS)

setup: $(STAMP)

# The backend is installed first, pinned like everything else, and used without
# build isolation: pip does not apply constraints inside an isolated build.
$(STAMP): pyproject.toml constraints.txt
	@python=$$(PYTHON="$(PYTHON)" sh scripts/find-python) || exit 1; \
	version=$$("$$python" -c 'import platform; print(platform.python_version())') && \
	echo "Setting up .venv with Python $$version and the pinned dependencies; this takes a minute or two." && \
	"$$python" -m venv --clear .venv
	@$(PIP) hatchling editables
	@$(PIP) --no-build-isolation --editable '.[dev]'
	@touch $@

clean:
	rm -rf .venv build dist .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
