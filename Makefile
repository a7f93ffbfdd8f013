# make train   distil a first student on this machine: no GPU, no network after installation
# make test    the whole test suite
# Both build .venv from constraints.txt when it is not there or out of date.
PYTHON ?= python3.11
VENV ?= .venv
BIN := $(VENV)/bin
QUIET_ENV := HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false

.PHONY: train test lint clean

train: $(VENV)/.installed
	$(QUIET_ENV) $(BIN)/python train.py experiment=quickstart

test: $(VENV)/.installed
	$(QUIET_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

$(VENV)/.installed: pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[embedded,hub,wandb,tensorboard,dev]"
	touch $@

clean:
	rm -rf $(VENV) .cache outputs multirun
