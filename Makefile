# Every command of the README and of CI, each in one place. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo train-bundled test test-all test-oldest notebook lint bench docs

.venv/installed: setup.cfg setup.py pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

# Completes three photographs, fine-tunes the model for two minutes, and evaluates before and after.
demo: .venv/installed
	$(BIN)/python -m deepfill_jax.data.samples demo/photos
	$(BIN)/deepfill inpaint --model scenes --images demo/photos/images \
	    --masks demo/photos/masks --output demo/completed --overwrite
	rm -rf demo/before demo/report
	$(BIN)/deepfill evaluate --config=demo --model=scenes --output=demo/before
	$(BIN)/deepfill train --config=demo --workdir=demo/run
	$(BIN)/deepfill evaluate --config=demo --workdir=demo/run --report=demo/report --compare=telea
	@echo "Completed photographs: demo/completed. Report on the training: demo/report/index.html."

# PHOTOS holds MODEL/train and MODEL/val.
MODEL ?= scenes
PHOTOS ?= photos
train-bundled: .venv/installed
	$(BIN)/python benchmarks/train_bundled.py $(MODEL) --photos $(PHOTOS)

test: .venv/installed
	$(BIN)/python -m pytest

# What `make test` leaves out: the slow tests, those in a browser among them, and those with PyTorch.
test-all: .venv/installed
	$(BIN)/python -m pytest -rs -m "slow or torch"

# The tests with the oldest versions that setup.cfg allows, which are not newer than Colab's.
test-oldest:
	$(PYTHON) -m venv .venv-oldest
	.venv-oldest/bin/pip install --quiet uv
	.venv-oldest/bin/uv pip install --python .venv-oldest/bin/python --quiet \
	    --resolution lowest-direct --constraints tests/oldest.txt --editable '.[test]'
	.venv-oldest/bin/python -m pytest

notebook: .venv/installed
	$(BIN)/python -m pytest -n 0 -m slow tests/test_notebook.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy deepfill_jax

docs: .venv/installed
	$(BIN)/mkdocs build --strict

bench: .venv/installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/pipeline.py
