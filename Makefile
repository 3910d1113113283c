# Everything here does its own set-up: on a fresh Debian machine with python3 and make, `make test` is enough.
#
#   make install   the environment only; then .venv/bin/celaje can be run
#   make demo      a cloud comes up; boto3 makes and uses instances, volumes and objects in it
#   make demo-vm   one machine, and no cloud: builds a Debian image, boots it, runs a few commands in the guest
#   make test      the tests          (make test TESTS="tests/cli -x" for some of them)
#   make test-clients   the tests in which a client that others wrote waits for minutes: Ansible, and Terraform, where they are installed
#   make test-full   the tests with the long repetitions and the image debian-13, which it builds if it is not there;
#                  CELAJE_REPETITIONS=500 make test TESTS=… for one of them
#   make clients   what some tests need besides, and skip without: Ansible, libcloud, the AWS CLI (500 MB)
#   make lint      ruff, mypy, the floors of the house
#   make bench     celaje beside QEMU and moto's server, where they are installed
#   make wheels    proof that every runtime dependency comes as a wheel

PYTHON ?= python3
TESTS ?=
BENCH ?=
VENV := .venv
BIN := $(VENV)/bin

.PHONY: help install demo demo-vm test test-clients test-full clients lint format bench wheels clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^#   //p' Makefile

install: $(VENV)/.runtime

demo: $(VENV)/.demo
	$(BIN)/python demo/cloud.py

demo-vm: $(VENV)/.runtime
	$(BIN)/python demo/console.py

# What boots machines and clouds has the processors to itself; everything else goes beside itself, file by file.
test: $(VENV)/.dev
ifdef TESTS
	$(BIN)/python -m pytest $(TESTS)
else
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile --ignore tests/system; first=$$?; \
	  $(BIN)/python -m pytest tests/system && exit $$first
endif

test-clients: $(VENV)/.dev
	$(BIN)/python -m pytest -m clients $(TESTS)

test-full: $(VENV)/.dev
	$(BIN)/celaje image build debian-13 --unless-current
	CELAJE_REPETITIONS=full $(BIN)/python -m pytest --timeout 7200 -m "full or not full" $(TESTS)

clients: $(VENV)/.clients

lint: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev
	$(BIN)/ruff check --fix .

bench: $(VENV)/.runtime
	$(BIN)/python -m bench.run $(BENCH)

wheels: $(VENV)/bin/python
	$(BIN)/python -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
	  > $(VENV)/requirements.txt
	$(BIN)/python -m pip install --quiet --only-binary :all: --ignore-installed --dry-run \
	  --requirement $(VENV)/requirements.txt
	@echo 'Every runtime dependency comes as a wheel.'

clean:
	rm -rf $(VENV) bench/build build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

# Both checks run first, so that nothing half-made is left behind: Debian's python3 has `venv` but not the `ensurepip`
# that it needs, which is in a package of its own.
$(VENV)/bin/python:
	@command -v $(PYTHON) >/dev/null || { echo "celaje needs Python 3.11 or newer: apt-get install python3" >&2; exit 2; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
	  { echo "celaje needs Python 3.11 or newer, and $(PYTHON) is $$($(PYTHON) -V 2>&1); choose another with PYTHON=..." >&2; exit 2; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo "$(PYTHON) cannot make a virtual environment; install the package python3-venv: apt-get install python3-venv" >&2; exit 2; }
	$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); exit 2; }

# Installed once, and again whenever pyproject.toml changes. pip takes its index from the host's own configuration.
$(VENV)/.runtime: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable .
	@touch $@

$(VENV)/.demo: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[demo]'
	@touch $@ $(VENV)/.runtime

$(VENV)/.clients: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[clients]'
	@touch $@

$(VENV)/.dev: $(VENV)/bin/python pyproject.toml
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	@touch $@ $(VENV)/.runtime $(VENV)/.demo
