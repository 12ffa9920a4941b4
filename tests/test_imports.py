"""Who may import whom, and what the core does without."""

import ast
import graphlib
import re
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "deepfill_jax"

# A folder, or a file of the root, imports only from rows above its own, besides itself.
LAYERS = """\
errors
config_table local_paths progress renamed user_cache
atomic_write cli compiler config distributed huge_pages image memory metric_table \
perceptual published sharding trained
compile_cache flags models pictures
checkpoint masks model_metadata tensors
data weights
convert
inpaint
app evaluate export notebook run_config
train
doctor
__init__ main
"""
LAYERS = [set(row.split()) for row in LAYERS.splitlines()]
# What `pip install deepfill_jax` does not install, and who may import it.
TRAINING = {"tensorflow", "tensorflow_datasets", "tensorboard", "clu", "ml_collections"}
TRAINERS = {"config", "data", "doctor", "flags", "main", "run_config", "train"}
TRAINERS |= {f"evaluate.{name}" for name in ("captions", "command", "evaluation", "event_files")}
WEB = {"gradio", "fastapi", "starlette", "pydantic", "uvicorn", "python_multipart"}


def files():
    """Name without the package's, and path, of each file."""
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE).with_suffix("").parts
        yield ".".join(parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts), path


NAMES = {name for name, _ in files()}


def imports(path):
    """Full names that a file imports, also inside functions."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{name.name}" for name in node.names)


def own(path):
    """Yields the names of the package's modules that a file imports."""
    for name in imports(path):
        if name.startswith("deepfill_jax."):
            inner = name.removeprefix("deepfill_jax.")
            while inner not in NAMES and "." in inner:
                inner = inner.rpartition(".")[0]
            yield inner if inner in NAMES else "__init__"


def room(name):
    """The folder, or the file of the root."""
    return name.partition(".")[0]


def level(name):
    (found,) = [i for i, layer in enumerate(LAYERS) if room(name) in layer]
    return found


def test_every_room_has_one_layer():
    assert sorted(r for layer in LAYERS for r in layer) == sorted({room(n) for n in NAMES})


@pytest.mark.parametrize("name, path", list(files()), ids=lambda value: str(value))
def test_imports_go_up(name, path):
    others = {x for x in own(path) if room(x) not in (room(name), "__init__")}
    below = {x for x in others if level(x) >= level(name)}
    assert not below, f"{name} must not import {below}"


def test_no_files_import_one_another():
    graph = {name: set(own(path)) - {name, "__init__"} for name, path in files()}
    try:
        graphlib.TopologicalSorter(graph).prepare()
    except graphlib.CycleError as error:
        pytest.fail(f"These import one another: {error.args[1]}")


def test_only_trainers_import_tensorflow():
    for name, path in files():
        heavy = {x.split(".")[0] for x in imports(path)} & TRAINING
        assert not heavy or {name, room(name)} & TRAINERS, f"{name} imports {heavy}"


def test_the_web_stays_in_the_app():
    for name, path in files():
        web = {x.split(".")[0] for x in imports(path)} & WEB
        assert not web or room(name) == "app", f"{name} imports {web}"


def test_only_pictures_decodes_image_files():
    decoders = re.compile(r"\b(Image\.open|cv2\.(imread|imdecode)|imageio|iio)\b")
    found = {name for name, path in files() if decoders.search(path.read_text())}
    assert {room(name) for name in found} == {"pictures"}, found


def test_the_core_runs_where_tensorflow_cannot_be_imported():
    core = [n for n in NAMES if not {n, room(n)} & {*TRAINERS, "app"} and not n.endswith("__")]
    names = [f"deepfill_jax.{name}" for name in sorted(core)]
    code = f"""
import sys, importlib
for name in {sorted(TRAINING | WEB | {"torch", "onnx", "onnxruntime"})}:
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
