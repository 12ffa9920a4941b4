"""Tests of the notebook, which is run from top to bottom with few training steps."""

from pathlib import Path

import nbclient
import nbformat
import pytest

NOTEBOOK = Path(__file__).parents[1] / "colab" / "deepfill_jax.ipynb"


@pytest.fixture
def notebook():
    return nbformat.read(NOTEBOOK, as_version=4)


def outputs(notebook, kind):
    return [x for cell in notebook.cells for x in cell.get("outputs", []) if x.output_type == kind]


@pytest.mark.slow
def test_notebook_runs(notebook, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOK.parents[1]))
    settings = next(cell for cell in notebook.cells if cell.source.startswith("# Settings"))
    assert "STEPS = 120" in settings.source
    settings.source = settings.source.replace("STEPS = 120", "STEPS = 4")
    for cell in notebook.cells:
        cell.outputs = []
    nbclient.NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": tmp_path}}
    ).execute()
    text = "".join(x.text for x in outputs(notebook, "stream") if x.name == "stdout")
    assert "4 of 4 steps are done" in text
    rows = [line.split("  ")[0].strip() for line in text.splitlines() if "l1_hole" in line]
    assert rows[-3:] == ["mean", "telea", "trained here"]
    assert (tmp_path / "run" / "checkpoints").is_dir()


def test_stored_outputs_are_small_and_of_this_version(notebook):
    assert NOTEBOOK.stat().st_size < 1_500_000
    pictures = [x for x in outputs(notebook, "execute_result") if "image/png" in x.data]
    assert len(pictures) == 2
    assert not outputs(notebook, "error")
    assert "120 of 120 steps are done" in str(outputs(notebook, "stream"))
