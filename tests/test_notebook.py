"""Tests of the notebooks, which are run from top to bottom, with few training steps."""

from pathlib import Path

import nbclient
import nbformat
import numpy as np
import pytest
from PIL import Image

ROOT = Path(__file__).parents[1]
NOTEBOOK, SHORT = (ROOT / "colab" / f"{name}.ipynb" for name in ("deepfill_jax", "inpaint"))
PAIR = "photos/images/rocket.png", "photos/masks/rocket.png"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook, kind):
    return [x for cell in notebook.cells for x in cell.get("outputs", []) if x.output_type == kind]


def run(notebook, folder, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for cell in notebook.cells:
        cell.outputs = []
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": folder}}
    ).execute()


@pytest.mark.slow
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    settings = next(cell for cell in notebook.cells if cell.source.startswith("# Settings"))
    assert "STEPS = 120" in settings.source
    settings.source = settings.source.replace("STEPS = 120", "STEPS = 4")
    run(notebook, tmp_path, monkeypatch)
    text = "".join(x.text for x in outputs(notebook, "stream") if x.name == "stdout")
    assert "4 of 4 steps are done" in text
    rows = [line.split("  ")[0].strip() for line in text.splitlines() if "l1_hole" in line]
    assert rows[-3:] == ["mean", "telea", "trained here"]
    assert (tmp_path / "run" / "checkpoints").is_dir()


@pytest.mark.slow
def test_short_notebook_fills_a_hole(tmp_path, monkeypatch):
    notebook = nbformat.read(SHORT, as_version=4)
    run(notebook, tmp_path, monkeypatch)
    assert len(outputs(notebook, "display_data")) == 2
    image, mask = (np.asarray(Image.open(tmp_path / path)) for path in PAIR)
    completed = np.asarray(Image.open(tmp_path / "completed.png"))
    known = mask <= 127
    assert (completed[known] == image[known]).all() and (completed != image).any()


@pytest.mark.parametrize("path", [NOTEBOOK, SHORT])
def test_notebooks_are_valid(path):
    nbformat.validate(nbformat.read(path, as_version=4))


@pytest.mark.parametrize("path", [NOTEBOOK, SHORT])
def test_notebooks_ask_colab_for_a_gpu(path):
    assert nbformat.read(path, as_version=4).metadata.accelerator == "GPU"


def test_stored_outputs_are_small_and_of_this_version(notebook):
    assert NOTEBOOK.stat().st_size < 1_500_000
    pictures = [x for x in outputs(notebook, "execute_result") if "image/png" in x.data]
    assert len(pictures) == 2
    assert not outputs(notebook, "error")
    assert "120 of 120 steps are done" in str(outputs(notebook, "stream"))
