# Everything a fresh machine with python3 (3.11 or newer) and make needs.
#   make demo    the short story on the built-in world, about three minutes on two cores
#   make story   the whole story: all four recipes, and the numbers of README's table
#   make test    every test
#   make quick   the tests that take no more than a moment, for daily work
#   make browser chromium from Debian's packages, for the tests of the page (as root)
#   make real    real weights and WordNet, for the tests on them and the notebook (as root)
#   make docs    the site of docs/ with the reference, strict about links; open site/index.html
#   make check   formatting, lint, types, import contracts
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
RUN_STAMP := $(VENV)/.installed-to-run
DOCS_STAMP := $(VENV)/.installed-docs
# More threads than cores make small networks many times slower.
export OMP_NUM_THREADS ?= 2
TEST_THREADS := OMP_NUM_THREADS=1
# A file's tests in one process, for they share what is slow to make; in the order of conftest.py.
TWO := -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo story test quick browser real docs check format clean clean-cache

demo: $(RUN_STAMP)
	$(BIN)/openmofi demo --out demo

story: $(RUN_STAMP)
	$(BIN)/openmofi demo --out story --size full

test: $(STAMP)
	$(TEST_THREADS) $(BIN)/python -m pytest $(TWO) --durations 20

quick: $(STAMP)
	$(TEST_THREADS) $(BIN)/python -m pytest $(TWO) -m "not slow" --ignore tests/serve/browser

browser:
	command -v chromium || command -v chromium-browser || command -v google-chrome \
	  || { apt-get update --quiet=2 && apt-get install --quiet=2 --yes chromium; }

real: $(STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev,real]'
	test -d /usr/share/wordnet \
	  || { apt-get update --quiet=2 && apt-get install --quiet=2 --yes wordnet-base; }

# Not --quiet, under which a strict build passes over what it would refuse.
docs: $(DOCS_STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks docs examples
	$(BIN)/ruff check src tests benchmarks docs examples
	$(BIN)/pyrefly check
	$(BIN)/lint-imports

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks docs examples
	$(BIN)/ruff check --fix src tests benchmarks docs examples

$(RUN_STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "OpenMOFI needs Python 3.11 or newer; set PYTHON=/path/to/it"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV) \
	  || { echo "no venv module: on Debian or Ubuntu, apt install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable .
	touch $(RUN_STAMP)

$(STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $(STAMP)

$(DOCS_STAMP): $(RUN_STAMP)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[docs]'
	touch $(DOCS_STAMP)

# numba does not notice that a compiled function in another file has changed.
clean-cache:
	find src -name '*.nb[ci]' -delete

clean:
	rm -rf $(VENV) demo story site dist build .pytest_cache .ruff_cache .hypothesis .import_linter_cache
	find src tests -name __pycache__ -type d -prune -exec rm -rf {} +
