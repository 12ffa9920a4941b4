# Every command of the README and of CI, each in one place. PYTHON chooses the interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo train-bundled test test-slow notebook lint bench

.venv/installed: setup.cfg pyproject.toml
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --upgrade pip
	$(BIN)/pip install --quiet --editable '.[dev]'
	touch $@

demo: .venv/installed
	$(BIN)/python -m deepfill_jax.data.samples demo/photos
	$(BIN)/python -m deepfill_jax.main --config=configs/demo.py --workdir=demo/run
	rm -rf demo/eval
	$(BIN)/python -m deepfill_jax.main --config=configs/demo.py --mode=eval --workdir=demo/run \
	    --report=demo/eval
	$(BIN)/python -m deepfill_jax.convert demo/run --output demo/model.safetensors --overwrite
	$(BIN)/python -m deepfill_jax.inpaint --model demo/model.safetensors --images demo/photos/photo.png \
	    --masks demo/photos/photo_mask.png --output demo/photo_completed.png --overwrite
	@echo "Look at demo/photo_completed.png beside demo/photos/photo.png, and at demo/eval/index.html."

# PHOTOS holds MODEL/train and MODEL/val.
MODEL ?= scenes
PHOTOS ?= photos
train-bundled: .venv/installed
	$(BIN)/python benchmarks/train_bundled.py $(MODEL) --photos $(PHOTOS)

test: .venv/installed
	$(BIN)/python -m pytest

test-slow: .venv/installed
	$(BIN)/python -m pytest -m slow

notebook: .venv/installed
	$(BIN)/python -m pytest -n 0 -m slow tests/test_notebook.py

lint: .venv/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

bench: .venv/installed
	$(BIN)/python benchmarks/speed.py
	$(BIN)/python benchmarks/pipeline.py
