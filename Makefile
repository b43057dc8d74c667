# `make help` lists the targets.  Everything runs from .venv, made from PYTHON on first use.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
TESTS ?=

# An editable install of the "compat" kind puts this folder on sys.path: twistd then finds the plugin
# once, wherever it is run.  The other kind does not expose twisted/plugins, and an ordinary install
# would offer a second, stale plugin to a twistd that runs here.
INSTALL = $(BIN)/python -m pip install --quiet --disable-pip-version-check --config-settings editable_mode=compat

.PHONY: help demo test proof bench lint types docs screenshots clean

help:
	@echo 'make demo    the service with a simulated gateway and a receiver, on loopback'
	@echo 'make test    every test but the long ones; TESTS="tests.calls" for some'
	@echo 'make proof   the long tests: kills, floods, faults'
	@echo 'make bench   load and latency'
	@echo 'make lint    ruff: rules and format'
	@echo 'make types   mypy, strict'
	@echo 'make docs    the documentation, into docs/_build/html'
	@echo 'make screenshots  the pictures of docs/console.md, taken anew; needs chromium'
	@echo 'make clean   remove what was built and cached; .venv stays'

# Ctrl-C is how it ends, not an error.
demo: $(VENV)/.stamp
	@trap : INT; $(BIN)/twistd -n --pidfile= cubehook --demo || [ $$? = 130 ]

test: $(VENV)/.stamp-test
	$(BIN)/python -m tests.run $(TESTS)

proof: $(VENV)/.stamp-test
	$(BIN)/python -m tests.run $(or $(TESTS),tests.proof)

bench: $(VENV)/.stamp-test
	$(BIN)/python -m bench

lint: $(VENV)/.stamp-lint
	$(BIN)/ruff check
	$(BIN)/ruff format --check

types: $(VENV)/.stamp-lint $(VENV)/.stamp-test $(VENV)/.stamp-docs
	$(BIN)/mypy

docs: $(VENV)/.stamp-docs
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html
	@echo 'docs/_build/html/index.html'

screenshots: $(VENV)/.stamp-test
	$(BIN)/python -m tests.browser.screenshots

$(VENV)/.stamp: setup.cfg pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cubehook needs Python 3.11 or later: make PYTHON=python3.11 ...")'
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(INSTALL) --editable .
	touch $@

$(VENV)/.stamp-%: $(VENV)/.stamp
	$(INSTALL) --editable '.[$*]'
	touch $@

clean:
	rm -rf build dist *.egg-info docs/_build _trial_temp* .hypothesis .mypy_cache .ruff_cache
	rm -f twisted/plugins/dropin.cache cubehook/plugins/dropin.cache
	find . -path ./$(VENV) -prune -o -name __pycache__ -type d -prune -exec rm -rf {} +
