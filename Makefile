# make train   distil a first student on this machine: no GPU, no network after installation
# make test    the whole test suite
# make docs    the documentation as a site, in site/; needs no network
# Both build .venv from constraints.txt when it is not there or out of date.
# make test-newest    the suite on the newest versions that pyproject.toml allows, in .venv-newest
# make test-optimum   exported folders in optimum-intel, which needs an environment of its own, .venv-optimum; OpenVINO of language models
# make test-llm-compressor   INT4 for vLLM; llm-compressor has .venv-llm-compressor to itself
# make test-sentence-transformers   students in sentence-transformers and the reverse; it has .venv-sentence-transformers to itself
# make test-pylate    students of late interaction in PyLate and the reverse; it has .venv-pylate to itself
PYTHON ?= python3.11
VENV ?= .venv
OPTIMUM ?= .venv-optimum
COMPRESSOR ?= .venv-llm-compressor
SENTENCES ?= .venv-sentence-transformers
PYLATE ?= .venv-pylate
BIN := $(VENV)/bin
NEWEST ?= .venv-newest
EXTRAS := embedded,hub,wandb,tensorboard,dev,docs
QUIET_ENV := HF_HUB_OFFLINE=1 WANDB_MODE=offline OMP_WAIT_POLICY=PASSIVE TOKENIZERS_PARALLELISM=false

# tests/conftest.py puts the files that take longest first.
PYTEST := pytest -n 2 --dist loadfile --no-loadscope-reorder --max-worker-restart=0

.PHONY: train test test-newest test-optimum test-llm-compressor test-sentence-transformers test-pylate lint docs clean

train: $(VENV)/.installed
	$(QUIET_ENV) $(BIN)/python train.py experiment=quickstart

test: $(VENV)/.installed
	$(QUIET_ENV) OMP_NUM_THREADS=1 $(BIN)/python -m $(PYTEST)

# torch alone comes from constraints.txt: where a CPU build of that version is at hand, no newer one pulls gigabytes of CUDA.
test-newest:
	$(PYTHON) -m venv --clear $(NEWEST)
	$(NEWEST)/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt)
	$(NEWEST)/bin/python -m pip install --quiet -e ".[$(EXTRAS)]"
	$(QUIET_ENV) OMP_NUM_THREADS=1 $(NEWEST)/bin/python -m $(PYTEST)

test-optimum: $(VENV)/.installed $(OPTIMUM)/.installed
	$(QUIET_ENV) MANGAKD_OPTIMUM_PYTHON=$(OPTIMUM)/bin/python $(BIN)/python -m pytest tests/export/test_optimum.py tests/export/test_openvino_language.py

test-llm-compressor: $(VENV)/.installed $(COMPRESSOR)/.installed
	$(BIN)/python -m pip install --quiet -c constraints.txt compressed-tensors
	$(QUIET_ENV) MANGAKD_LLM_COMPRESSOR_PYTHON=$(COMPRESSOR)/bin/python $(BIN)/python -m pytest tests/export/test_vllm_int4.py

test-sentence-transformers: $(VENV)/.installed $(SENTENCES)/.installed
	$(QUIET_ENV) MANGAKD_SENTENCE_TRANSFORMERS_PYTHON=$(SENTENCES)/bin/python $(BIN)/python -m pytest tests/export/test_in_sentence_transformers.py tests/export/test_losses_beside_sentence_transformers.py

test-pylate: $(VENV)/.installed $(PYLATE)/.installed
	$(QUIET_ENV) MANGAKD_PYLATE_PYTHON=$(PYLATE)/bin/python $(BIN)/python -m pytest tests/export/test_in_pylate.py

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

docs: $(VENV)/.installed
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

$(VENV)/.installed: pyproject.toml setup.py constraints.txt
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet -c constraints.txt torch
	$(BIN)/python -m pip install --quiet -c constraints.txt -e ".[$(EXTRAS)]"
	touch $@

$(OPTIMUM)/.installed: constraints.txt
	$(PYTHON) -m venv $(OPTIMUM)
	$(OPTIMUM)/bin/python -m pip install --quiet -c constraints.txt torch transformers optimum-intel openvino nncf
	touch $@

# torch alone comes from constraints.txt: llm-compressor wants a newer transformers.
$(COMPRESSOR)/.installed: constraints.txt
	$(PYTHON) -m venv $(COMPRESSOR)
	$(COMPRESSOR)/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt) 'llmcompressor==0.14.0.1'
	touch $@

$(SENTENCES)/.installed: constraints.txt
	$(PYTHON) -m venv $(SENTENCES)
	$(SENTENCES)/bin/python -m pip install --quiet -c constraints.txt torch transformers 'sentence-transformers==6.2.0'
	touch $@

# PyLate without the indexes and kernels that it brings along.
$(PYLATE)/.installed: constraints.txt
	$(PYTHON) -m venv $(PYLATE)
	$(PYLATE)/bin/python -m pip install --quiet $$(grep '^torch==' constraints.txt) 'sentence-transformers==5.3.0' 'transformers==5.3.0' accelerate datasets scipy ujson
	$(PYLATE)/bin/python -m pip install --quiet --no-deps 'pylate==1.6.0'
	touch $@

clean:
	rm -rf $(VENV) $(NEWEST) $(OPTIMUM) $(COMPRESSOR) $(SENTENCES) $(PYLATE) .cache outputs multirun site
