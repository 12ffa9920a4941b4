"""Who may import whom, and what the core does without."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deepfill_jax"

# A file imports only files of rows above its own, and of its own row only those to its left.
ROWS = {
    "values": ["errors", "image", "masks", "losses", "metrics"],
    "models": [
        "models.variants",
        "models.cpu_convolution",
        "models.layers",
        "models.attention",
        "models.generator",
        "models.discriminator",
        "models",
    ],
    "state": [
        "compiler",
        "sharding",
        "distributed",
        "train_state",
        "steps",
        "checkpoint",
        "weights",
        "convert",
        "convert.crc32c",
        "convert.tensor_bundle",
        "convert.layout",
        "convert.releases",
        "convert.torch_file",
        "convert.mmagic",
        "convert.tensorflow1",
        "convert.nipponjo",
        "convert.run",
        "convert.sources",
        "convert.report",
        "convert.__main__",
    ],
    "use": [
        "inspect",
        "baselines",
        "drawing",
        "completion",
        "evaluate",
        "charts",
        "evaluation_page",
        "pictures.metadata",
        "pictures.decoding",
        "pictures.encoding",
        "pictures",
        "holes",
        "canvas",
        "inpainter",
        "folder",
        "inpaint",
        "export",
        "export.stablehlo",
        "export.onnx",
        "export.__main__",
        "__init__",
    ],
    "host": [
        "data",
        "data.examples",
        "data.workers",
        "data.files",
        "data.sources",
        "data.pipeline",
        "data.edges",
        "data.samples",
        "config",
        "assemble",
        "curves",
        "health",
        "train",
        "doctor",
        "doctor.case",
        "doctor.machine",
        "doctor.pictures",
        "doctor.training",
        "doctor.examination",
    ],
    "door": [
        "huge_pages",
        "main",
        "doctor.__main__",
        "app",
        "app.service",
        "app.guard",
        "app.api",
        "app.painting",
        "app.sessions",
        "app.layout",
        "app.actions",
        "app.page",
        "app.web",
        "app.__main__",
        "cli",
    ],
}
ORDER = [module for row in ROWS.values() for module in row]
# TensorFlow, and what imports it.
HEAVY = {"tensorflow", "tensorflow_datasets", "clu", "ml_collections"}
WEB = {"gradio", "fastapi", "starlette", "pydantic", "uvicorn", "python_multipart"}


def files():
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        if parts[-1] == "__init__" and len(parts) > 1:
            parts = parts[:-1]
        yield ".".join(parts), path


def imports(path):
    """Full names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def own(name):
    """The module of ours that an imported name is, or is in; None for other packages."""
    if name.split(".")[0] != "deepfill_jax":
        return None
    inner = name.split(".")[1:]
    while inner and ".".join(inner) not in ORDER:
        inner = inner[:-1]
    return ".".join(inner) or "__init__"


def test_every_file_has_a_row():
    assert sorted(ORDER) == sorted(name for name, _ in files())


@pytest.mark.parametrize("name, path", list(files()), ids=lambda value: str(value))
def test_imports_go_up(name, path):
    allowed = ORDER[: ORDER.index(name)]
    below = {own(x) for x in imports(path) if own(x)} - set(allowed) - {"__init__"}
    assert not below, f"{name} must not import {below}"


def test_heavy_packages_stay_in_the_host_row():
    host = [*ROWS["host"], *ROWS["door"]]
    for name, path in files():
        heavy = {x.split(".")[0] for x in imports(path)} & HEAVY
        assert not heavy or name in host, f"{name} imports {heavy}"


def test_the_web_stays_in_the_app():
    for name, path in files():
        web = {x.split(".")[0] for x in imports(path)} & WEB
        assert not web or name.startswith("app."), f"{name} imports {web}"


def test_data_knows_nothing_of_networks():
    for name, path in files():
        if name.startswith("data"):
            assert {own(x) for x in imports(path) if own(x)} <= {
                *ROWS["values"],
                *(module for module in ROWS["host"] if module.startswith("data")),
            }


def test_the_core_runs_where_tensorflow_cannot_be_imported():
    core = [m for row in ("values", "models", "state", "use") for m in ROWS[row]]
    names = [f"deepfill_jax.{m}" for m in core if not m.endswith("__")]
    code = f"""
import sys, importlib
for name in {sorted(HEAVY | WEB | {"torch", "onnx", "onnxruntime"})}:
    sys.modules[name] = None
for name in {names}:
    importlib.import_module(name)
from deepfill_jax import Inpainter, Prediction
"""
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_package_itself_imports_nothing():
    code = (
        "import sys, deepfill_jax; assert 'jax' not in sys.modules and 'numpy' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
