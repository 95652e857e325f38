# `make test` and `make demo` set everything up by themselves: Python >= 3.11, make, git and a C compiler suffice.
PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/.installed
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: install test check demo clean

install: $(INSTALLED)

# uv reads the lock much faster than pip; it comes from the same registry, by version.
$(INSTALLED): requirements.lock pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, got " + sys.version.split()[0])'
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet uv==0.13.9
	$(BIN)/uv pip install --quiet --python $(BIN)/python -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	touch $@

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

test: check
	$(BIN)/python -m pytest -n 2 --dist loadgroup

demo: install
	$(BIN)/python -m sweeps run +experiment=demo
	$(BIN)/python -m sweeps clean results/demo --stale --yes
	$(BIN)/python -m analysis summary results/demo -o results/demo/table.md
	$(BIN)/python -m analysis plots results/demo -o results/demo/figures --only retention flops evidence
	$(BIN)/python -m analysis report results/demo -o results/demo/report.html

clean:
	rm -rf .venv build *.egg-info
