# Each target sets up what it needs in $(VENV); nothing outside the folder is touched.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# Small models are fastest on one thread, and two programs with two threads each slow each other down tenfold.
export OMP_NUM_THREADS ?= 1

.PHONY: demo test slow browser check bench clean

demo: $(VENV)/.agents
	$(BIN)/python examples/quickstart.py

test: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal

slow: $(VENV)/.dev
	$(BIN)/python -m pytest -n 2 --dist worksteal -m slow

# Chromium is Debian's: apt-get install chromium. Without it, or without npm, tests are skipped with the reason.
browser: $(VENV)/.dev
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[browser]'
	-npm install --silent --prefix build axe-core@4.14.1
	$(BIN)/python -m pytest -m browser -rs

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# sample_efficiency.py takes hours; it continues where it stopped, so start it by hand.
bench: $(VENV)/.bench
	for script in $(filter-out benchmarks/sample_efficiency.py, $(wildcard benchmarks/*.py)); do echo "== $$script"; $(BIN)/python $$script || exit 1; done

clean:
	rm -rf $(VENV) build dist runs

$(VENV)/bin/python:
	$(PYTHON) -m venv $(VENV)

# The stamp of the larger set also serves the smaller one.
$(VENV)/.agents: $(VENV)/bin/python pyproject.toml constraints.txt
	@test -e $(VENV)/.dev || echo "Installing textgym and its agents into $(VENV): about two minutes without output."
	test -e $(VENV)/.dev || $(BIN)/python -m pip install --quiet -c constraints.txt -e '.[agents]'
	touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev]'
	touch $@

$(VENV)/.bench: $(VENV)/bin/python pyproject.toml constraints.txt
	$(BIN)/python -m pip install --quiet -c constraints.txt -e '.[dev,bench]'
	touch $(VENV)/.dev $@
