# Every target works in the checkout's own .venv, which is made on first use and refreshed when pyproject.toml changes.
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $$p && break; done)
BIN := .venv/bin
STAMP := .venv/.neds-rt-installed

# pip ranks a +cpu build of torch above the CUDA build of the same version wherever it is offered one. Without an
# NVIDIA GPU it is therefore also offered PyTorch's CPU index, if that answers; otherwise pip's own sources decide.
CPU_INDEX := https://download.pytorch.org/whl/cpu

# Most tests share three processes: as a rule one of them waits. Tests in real time then run alone. The second part runs
# even where the first one failed. A worker that runs out of tests takes some of another's.
PARALLEL := -n 3 --dist worksteal
define pytest
@failed=0; \
$(BIN)/pytest $(PARALLEL) -m "$(1) and not serial" $(PYTEST_ARGS) || test $$? = 5 || failed=1; \
$(BIN)/pytest -m "$(1) and serial" $(PYTEST_ARGS) || test $$? = 5 || failed=1; \
exit $$failed
endef

.PHONY: install run calibrate test lint slow bench clean

install: $(STAMP)

run: $(STAMP)
	$(BIN)/neds-rt run

calibrate: $(STAMP)
	$(BIN)/neds-rt rehearse

test: $(STAMP)
	$(call pytest,not slow)

slow: $(STAMP)
	$(call pytest,slow)

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
