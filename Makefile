# make train   distil a first student on this machine: no GPU, no network after installation
# make test    the whole test suite
# make test-optimum   exported folders in optimum-intel, which needs an environment of its own
# All build .venv from constraints.txt when it is not there or out of date.
PYTHON ?= python3.11
VENV ?= .venv
OPTIMUM ?= .venv-optimum
BIN := $(VENV)/bin
QUIET_ENV := HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false

.PHONY: train test test-optimum lint clean

train: $(VENV)/.installed
	$(QUIET_ENV) $(BIN)/python train.py experiment=quickstart

test: $(VENV)/.installed
	$(QUIET_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile --max-worker-restart=0

test-optimum: $(VENV)/.installed $(OPTIMUM)/.installed
	$(QUIET_ENV) MANGAKD_OPTIMUM_PYTHON=$(OPTIMUM)/bin/python $(BIN)/python -m pytest tests/export/test_optimum.py

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

$(OPTIMUM)/.installed: constraints.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install --quiet -c constraints.txt torch transformers optimum-intel openvino nncf
	touch $@

clean:
	rm -rf $(VENV) $(OPTIMUM) .cache outputs multirun
