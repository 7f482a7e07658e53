# Two commands: `make demo` and `make test`; and `make test-next`, for Spark 4.2 on the newest Python. Each makes its
# environment first.
VENV := .venv
BIN := $(VENV)/bin
NEXT := .venv-next
NEXT_TESTS := tests/cluster/test_delta.py tests/cluster/test_java.py tests/test_one_pair.py \
	$(addprefix tests/udfs/,test_scoring.py test_python_daemon.py) \
	$(addprefix tests/jobs/,test_score.py test_publish.py engine/test_resume.py test_build_pairs.py)
PYTHON ?= $(shell command -v python3.11 || command -v python3)
NEXT_PYTHON ?= $(shell for one in python3.13 python3.12 $(PYTHON); do $$one -c 'import venv, ensurepip' 2>/dev/null && echo $$one && break; done)

# Bytecode is kept although a container's environment may say otherwise: without it each process compiles torch,
# transformers and pyspark anew, 8 to 9 s of a core.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo test test-next archive lint python next-python java clean

demo: python java $(VENV)/installed
	@$(BIN)/mkdm demo
	@echo "Making an archive of Spark's classes, which spares later starts some seconds (about 40 s, once)"
	@$(MAKE) --no-print-directory archive

test: python java $(VENV)/installed
	@$(MAKE) --no-print-directory --jobs 2 lint archive
	@$(BIN)/pytest

archive: $(VENV)/installed
	@$(BIN)/python -m cluster.class_archive

test-next: $(NEXT)/installed
	@$(NEXT)/bin/python -m cluster.java && $(NEXT)/bin/python -m cluster.class_archive && $(NEXT)/bin/pytest $(NEXT_TESTS)

lint: $(VENV)/installed
	@$(BIN)/ruff format --check . && $(BIN)/ruff check . && $(BIN)/mypy

$(VENV)/installed: setup.cfg pyproject.toml constraints.txt | python
	@echo "Installing the pinned dependencies into $(VENV) (about 3 minutes and 6 GB, once)"
	@$(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@

$(NEXT)/installed: setup.cfg pyproject.toml constraints-next.txt | next-python
	@echo "Installing the newest Spark and Delta Lake that work together into $(NEXT)"
	@$(NEXT_PYTHON) -m venv $(NEXT)
	@$(NEXT)/bin/pip install --quiet --disable-pip-version-check --no-compile --constraint constraints-next.txt --editable '.[cpu,test]'
	@touch $@

python:
	@test -n "$(PYTHON)" && $(PYTHON) -c 'import sys, venv, ensurepip; sys.exit(sys.version_info[:2] != (3, 11))' 2>/dev/null \
	|| { echo "error: Python 3.11 with venv is needed: install it (Debian: apt-get install python3.11-venv) or pass PYTHON=…"; exit 1; }

next-python:
	@test -n "$(NEXT_PYTHON)" && $(NEXT_PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null \
	|| { echo "error: Python 3.11, 3.12 or 3.13 with venv is needed: pass NEXT_PYTHON=…"; exit 1; }

java: python
	@$(PYTHON) -m cluster.java

clean:
	rm -rf $(VENV) $(NEXT) build
