PYTHON ?= python3
INSTALL = .venv/bin/uv pip install -q --no-deps --python .venv/bin/python

.PHONY: help setup demo app test slow fuzz lint docs parity bench gpu lock clean

help:   ## list these targets
	@grep -hE '^[a-z]+:.*##' Makefile | sed 's/:.*##/\t/'

setup: .venv/.ready  ## make .venv with the exact versions of requirements.txt

demo: setup  ## train, evaluate and draw a small detector
	.venv/bin/python tools/demo.py

app: setup  ## serve a page that shows what the demo's detector finds, and where it looks
	.venv/bin/python tools/app.py

test: setup lint  ## lint, then the default test suite
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -n auto --maxprocesses=4 --dist=worksteal

fuzz: setup  ## CASES=5000 hostile inputs for every command, about half an hour; SEED=N for the same again
	.venv/bin/python tests/fuzz --cases $(or $(CASES),5000) $(if $(SEED),--seed $(SEED))

slow: setup  ## the tests that take minutes: about half an hour on two idle cores
	OMP_NUM_THREADS=1 .venv/bin/python -m pytest -q -m slow -n auto --maxprocesses=2 --dist=loadfile --durations=20

parity: setup  ## compare with the official models and write the table in docs/faithfulness.md
	.venv/bin/python tests/parity_report.py

BENCH = .venv/bin/uv pip install -q --python .venv/bin/python --no-build-isolation -c requirements.txt
bench: setup  ## measure speed and memory against what others offer, half an hour; writes docs/benchmarks.md
	$(BENCH) -e '.[bench]'
	$(BENCH) -e '.[bench-compiled]' || echo 'torch-ms-deform-attn needs a C++ compiler; it is left out'
	.venv/bin/python -m benchmarks.table --write

gpu: setup  ## test and measure on your GPU, at most 9 minutes (docs/gpu.md)
	.venv/bin/python -m benchmarks.gpu

lint: setup  ## ruff, mypy and the rules of who may import whom
	.venv/bin/ruff check && .venv/bin/ruff format --check && .venv/bin/mypy && .venv/bin/lint-imports

docs: setup  ## build the documentation site in build/site
	.venv/bin/python -m sphinx -q -W --keep-going -n -c docs -d build/doctrees . build/site
	@echo 'Open build/site/index.html'

lock: setup  ## write requirements.txt anew from setup.py, keeping what still fits
	.venv/bin/uv pip compile -q --universal --python-version 3.10 --extra test --no-annotate --no-header setup.py -o requirements.txt

clean:  ## remove .venv and the caches
	rm -rf .venv build docs/api *.egg-info .import_linter_cache .mypy_cache .pytest_cache .ruff_cache

# A .venv without the stamp was left unfinished: start it anew. No resolver runs, only the lock.
.venv/.ready: requirements.txt setup.py
	@$(PYTHON) -c 'import ensurepip, sys; sys.exit(not (3, 10) <= sys.version_info < (3, 14))' 2>/dev/null || \
	  { echo 'setup needs Python 3.10 to 3.13 with venv; choose one: make setup PYTHON=python3.11'; exit 1; }
	@echo 'Installing the packages of requirements.txt into .venv: about two minutes, 6 GB ...'
	@test -f $@ || $(PYTHON) -m venv --clear .venv
	@rm -f $@ && .venv/bin/python -m pip install -qq --disable-pip-version-check uv==0.13.9
	@$(INSTALL) --compile-bytecode -r requirements.txt
	@$(INSTALL) --no-build-isolation -e .
	@touch $@ && echo 'Ready: .venv'
