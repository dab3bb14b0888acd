# Every target works in the checkout's own .venv, which is made on first use and refreshed when pyproject.toml changes.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.neds-rt-installed

# pip ranks a +cpu build of torch above the CUDA build of the same version wherever it is offered one. Without an
# NVIDIA GPU it is therefore also offered PyTorch's CPU index, if that answers; otherwise pip's own sources decide.
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Tests start hundreds of processes: what Python compiled for one is kept for the next, even where the shell forbids it.
unexport PYTHONDONTWRITEBYTECODE

# Two parts. Tests in real time run one after the other, and mostly wait. Quick ones do so beside the others, which share
# three processes and get what the first leave of the processors (nice); AT_ONCE=1 runs one part after the other. Slow
# ones have the machine to themselves: some send to a loop and fail where they are late themselves. A worker that runs
# out of tests takes some of another's. Each part runs to its end even where the other one fails. Each process computes
# in one thread: the processors are shared already.
AT_ONCE ?= 2
PARALLEL := -n 3 --dist worksteal
together alone: export OMP_NUM_THREADS := 1
together alone: export OPENBLAS_NUM_THREADS := 1
PARTS := --no-print-directory -k together alone

.PHONY: install run calibrate test lint slow together alone bench clean

install: $(STAMP)

run: $(STAMP)
	$(BIN)/neds-rt run

calibrate: $(STAMP)
	$(BIN)/neds-rt rehearse

test: $(STAMP)
	@$(MAKE) $(PARTS) -j $(AT_ONCE) TESTS="not slow"

slow: $(STAMP)
	@$(MAKE) $(PARTS) -j 1 TESTS=slow

together:
	@nice -n 19 $(BIN)/pytest $(PARALLEL) -m "$(TESTS) and not serial" $(PYTEST_ARGS) || test $$? = 5

# What it prints comes at its end, in one piece.
alone:
	@said=$$(mktemp); \
	$(BIN)/pytest -m "$(TESTS) and serial" $(PYTEST_ARGS) >$$said 2>&1; code=$$?; \
	cat $$said; rm -f $$said; test $$code = 0 -o $$code = 5

# On a quiet machine, in under 5 minutes: beside the last result of this machine, exit 3 where it is worse.
bench: $(STAMP)
	$(BIN)/python -m benchmarks.latency.watch

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --threads 2

# Leaves .venv and runs/ alone.
clean:
	rm -rf build dist *.egg-info .pytest_cache .ruff_cache .hypothesis
	find . -path ./.venv -prune -o -type d -name __pycache__ -exec rm -rf {} +

$(STAMP): pyproject.toml
	@test -x $(BIN)/python -o -n "$(PYTHON)" || { echo "no Python 3.11 or newer found; set PYTHON=/path/to/python3"; exit 1; }
	@test -x $(BIN)/python || { echo "making .venv with $(PYTHON)"; $(PYTHON) -m venv .venv; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || $(BIN)/python -m ensurepip >/dev/null
	@echo "installing neds-rt and its tools into .venv (the first time takes minutes)"
	@extra=; \
	if ! command -v nvidia-smi >/dev/null && \
		$(BIN)/python -c "import urllib.request as u; u.urlopen('$(CPU_INDEX)/torch/', timeout=5)" 2>/dev/null; \
	then extra="--extra-index-url $(CPU_INDEX)"; echo "no NVIDIA GPU: also looking for torch in $(CPU_INDEX)"; fi; \
	$(BIN)/python -m pip install -qq $$extra -e '.[dev]'
	@touch $@
