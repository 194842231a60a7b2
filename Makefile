# make run    set up .venv on the first call, then run one cell: make run ARGS="scheduler=prefill_first seed=1"
# make test   set up .venv on the first call, then lint, types and tests
# make slow   the tests that take long, which make test leaves out: run them before a change of their area lands
# make docs   build the documents as a site in site/, every link checked
# make lint   ruff and mypy alone          make format   rewrite in the project's format
# make clusters   a sweep on each of torchrun, Slurm and Ray, with two hosts or nodes on this machine; minutes
# make lock   write requirements.lock anew after a change of pyproject.toml or constraints.txt
# make audit  compare the locked versions with the newest, withdrawn ones and ADVISORIES=FOLDER (see .ci/audit.py)
# make clean  remove .venv and caches; outputs/ and multirun/ stay

ARGS ?=
VENV ?= .venv
PY := $(VENV)/bin/python
STAMP := $(VENV)/.servelab-installed
SUPPORTED := import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c "$(SUPPORTED)" >/dev/null 2>&1 && echo $$p && break; done)
PIP := $(PY) -m pip --disable-pip-version-check
LOCKED := $(PIP) install --quiet --no-compile --require-hashes --no-deps --requirement
WORKERS = $(shell n=$$(nproc); echo $$((n + (n + 1) / 2)))
# half as many again as cores: a quarter of the tests' time is spent waiting for other processes
SOURCES := run.py framework plugins hydra_plugins tests experiments docs

.DEFAULT_GOAL := run
.PHONY: run test slow docs lint format lock audit clusters clean

run: $(STAMP)
	$(PY) run.py $(ARGS)

test: lint
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal -m "not slow"

slow: $(STAMP)
	OMP_NUM_THREADS=1 $(PY) -m pytest --numprocesses $(WORKERS) --maxprocesses 8 --dist worksteal -m slow

lint: $(STAMP)
	$(PY) -m ruff check $(wildcard $(SOURCES))
	$(PY) -m ruff format --check $(wildcard $(SOURCES))
	$(PY) -m mypy

docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(PY) -m mkdocs build --strict

format: $(STAMP)
	$(PY) -m ruff check --fix $(wildcard $(SOURCES))
	$(PY) -m ruff format $(wildcard $(SOURCES))

$(STAMP): pyproject.toml constraints.txt $(wildcard requirements*.lock)
	@$(or $(PYTHON),false) -c "$(SUPPORTED)" || { echo "ServeLab needs Python 3.11, 3.12 or 3.13, and found none of" \
		"them as python3, python3.13, python3.12 or python3.11. Install one and call: make PYTHON=/path/to/python3.12"; \
		exit 1; } >&2
	$(PYTHON) -m venv $(VENV)
	PIP_CONSTRAINT=constraints.txt $(LOCKED) requirements.lock
	@$(LOCKED) requirements-cpu.lock 2>/dev/null || { echo "pip finds no CPU build of PyTorch that" \
		"requirements-cpu.lock knows: installing that of PyPI with NVIDIA's libraries."; \
		$(LOCKED) requirements-cuda.lock; }
	$(PIP) install --quiet --no-deps --no-build-isolation --editable .
	@touch $@

clusters: $(STAMP)
	$(PY) -m tests.clusters.torchrun
	$(PY) -m tests.clusters.slurm
	$(PY) -m tests.clusters.ray_nodes

lock:
	test -x $(PY) || $(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --constraint constraints.txt uv
	$(PY) .ci/lock.py

audit: $(STAMP)
	$(PIP) install --quiet --constraint constraints.txt uv
	$(PY) .ci/audit.py $(ADVISORIES)

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info build dist
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
