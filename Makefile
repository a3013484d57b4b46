# Two commands: `make demo` shows what Foreword does, `make test` proves it. Both set up first.
PYTHON ?= $(shell command -v python3.11 || command -v python3)
BIN := .venv/bin
STAMP := .venv/.ready
export TOKENIZERS_PARALLELISM := false
export HF_HUB_DISABLE_TELEMETRY := 1

.PHONY: setup demo test reliability check format bench clean

setup: $(STAMP)

# torch comes first and alone: on its own, another package would pull the CUDA build.
$(STAMP): pyproject.toml constraints.txt
	@"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Foreword needs Python 3.11 or newer; name one with PYTHON=..."; exit 1; }
	$(BIN)/python -m pip --version >/dev/null 2>&1 || "$(PYTHON)" -m venv --clear .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check torch==2.13.0
	$(BIN)/python -m pip install --quiet --disable-pip-version-check \
	  -c constraints.txt -e '.[train,data,postgres,serve,otlp,oidc,eval,dev]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/python examples/demo.py

# Two processes with one thread each: many tests wait for servers they started.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -q -n 2 --dist loadfile

# The full counts instead of the fixed sample that `test` runs; writes reports/reliability.json.
reliability: $(STAMP)
	FOREWORD_LONG=1 $(BIN)/python -m pytest -q tests/reliability

check: $(STAMP)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

format: $(STAMP)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

# The full runs take about two hours and want a quiet machine.
bench: $(STAMP)
	$(BIN)/python bench/training_vs_peft.py
	$(BIN)/python bench/first_prefix.py
	$(BIN)/python bench/demo_vs_peft.py
	$(BIN)/python bench/registry.py
	$(BIN)/python bench/serving_step.py
	$(BIN)/python bench/serving_rows.py
	$(BIN)/python bench/serving.py
	$(BIN)/python bench/serving_picture.py
	$(BIN)/python bench/gateway.py
	$(BIN)/python bench/metrics.py
	$(BIN)/python bench/metrics_proxies.py
	$(BIN)/python bench/error_rates.py
	$(BIN)/python bench/judge.py
	$(BIN)/python bench/specialists.py

clean:
	rm -rf .venv demo-run .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
