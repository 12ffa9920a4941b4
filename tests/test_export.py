"""Exported files compared with the model, at shapes that are not used during the export."""

import dataclasses
import functools
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy
from jax import export
from made import make_model

from deepfill_jax import compiler, weights
from deepfill_jax.errors import UsageError
from deepfill_jax.export import __main__ as command
from deepfill_jax.export import onnx, onnx_stepwise, smallest_side, stablehlo
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.models.variants import VARIANTS
from deepfill_jax.tensors import flatten

pytest.importorskip("flatbuffers")  # The extra `export` may not be installed.

NAMES = sorted(VARIANTS)
# Batch, height, width. Exporters use symbolic shapes, so one shape suffices; each is compiled.
SHAPE, OTHER_SHAPE = (3, 80, 72), (1, 72, 96)
METADATA = {"license": "CC BY-NC 4.0", "step": 7}


@functools.cache
def model(name):
    """Returns a model with a kernel gain at which every layer influences the result."""
    small = make_model(name)
    return dataclasses.replace(
        small, generator=jax.tree.map(lambda x: 2.2 * x, small.generator), metadata=METADATA
    )


@pytest.fixture(autouse=True)
def checked_shapes(monkeypatch):
    monkeypatch.setattr(command, "CHECK_SHAPES", (SHAPE, SHAPE))
    # The files have the models of `model`, so their compiled programs are shared.
    shared = lambda read: Inpainter(read) if read.variant.guided else inpainter(read.variant.name)  # noqa: E731
    monkeypatch.setattr(command, "Inpainter", shared)


@functools.cache
def inpainter(name):
    return Inpainter(model(name))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Returns a folder with a model file of each architecture."""
    folder = tmp_path_factory.mktemp("export")
    for name in NAMES:
        weights.save(folder / f"{name}.safetensors", model(name))
    return folder


def make_batch(batch, height, width):
    """Returns noise images with NaN in the hole, and masks that differ between examples."""
    rng = np.random.default_rng(1)
    image = rng.uniform(-1, 1, (batch, height, width, 3)).astype(np.float32)
    mask = np.full((batch, height, width, 1), 0.5, np.float32)  # The largest value of known pixels.
    for index in range(batch):
        top = 8 + 9 * index
        mask[index, top : top + 30, 13 : width // 2] = 0.51
    return np.where(mask > 0.5, np.float32("nan"), image), mask


def assert_completes(complete, name, *, shape=SHAPE, atol=1e-5):
    image, mask = make_batch(*shape)
    completed = np.asarray(complete(image, mask))
    assert completed.dtype == np.float32 and completed.shape == image.shape
    with compiler.use_form("default"):
        expected = inpainter(name).predict(image, mask).completed
    hole = np.isnan(image)
    assert (
        expected[hole].std() > 0.1
    )  # The results are not constant, so the comparison below is meaningful.
    np.testing.assert_allclose(completed, expected, rtol=0, atol=atol)
    np.testing.assert_array_equal(completed[~hole], image[~hole])


def run(*arguments):
    """Runs the command in this process and returns its exit code."""
    try:
        command.main([str(x) for x in arguments])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.parametrize("name", NAMES)
def test_stablehlo_matches_the_model(folder, name, capsys):
    output = folder / "new" / f"{name}.stablehlo"
    assert run(folder / f"{name}.safetensors", "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["architecture", name]
    assert lines[1].endswith("from the model, at 3x80x72 and 3x80x72")
    assert_completes(stablehlo.load(output), name)
    assert [path.name for path in output.parent.glob(f"{name}*")] == [output.name]

    exported = export.deserialize(bytearray(output.read_bytes()))
    assert exported.platforms == ("cpu", "cuda")
    assert json.loads(exported.fun_name) == METADATA | {
        "architecture": name,
        "width": 2,
        "guided": False,
    }


def test_separate_weights_are_the_tensors_of_the_model_file(folder):
    source, output = folder / "official.safetensors", folder / "separate.stablehlo"
    stablehlo.save(output, model("official"), weights="separate", platforms=("cpu", "tpu"))
    complete, tensors = stablehlo.load(output), safetensors.numpy.load_file(source)
    separate = functools.partial(complete, tensors)
    assert_completes(separate, "official")
    image, mask = make_batch(*SHAPE)
    grey = complete(jax.tree.map(np.zeros_like, tensors), image, mask)
    assert not np.asarray(grey)[np.isnan(image)].any()
    assert export.deserialize(bytearray(output.read_bytes())).platforms == ("cpu", "tpu")


def test_stablehlo_runs_without_flax_and_without_this_package(folder):
    stablehlo.save(folder / "alone.stablehlo", model("mmagic"))
    image, mask = make_batch(*OTHER_SHAPE)
    np.save(folder / "image.npy", image)
    np.save(folder / "mask.npy", mask)
    code = """
import sys
for name in ("flax", "deepfill_jax", "safetensors"):
    sys.modules[name] = None  # As if it were not installed.
import numpy as np
from jax import export
exported = export.deserialize(bytearray(open("alone.stablehlo", "rb").read()))
np.save("completed.npy", exported.call(*map(np.load, ("image.npy", "mask.npy"))))
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=folder, timeout=120)
    completed = np.load(folder / "completed.npy")
    # The result is rounded differently, because it is compiled without `compiler.options`.
    assert_completes(lambda *_: completed, "mmagic", shape=OTHER_SHAPE, atol=1e-4)


@pytest.mark.parametrize("name, smallest", [("official", 8), ("mmagic", 72)])
def test_stablehlo_refuses_invalid_sides(folder, name, smallest):
    assert smallest_side(model(name).variant) == smallest
    stablehlo.save(folder / "sides.stablehlo", model(name))
    complete = stablehlo.load(folder / "sides.stablehlo")
    for width, message in [(smallest - 8, "Expected value >= 1"), (smallest + 4, "remainder 4")]:
        image = np.zeros((1, smallest, width, 3), np.float32)
        with pytest.raises(ValueError, match=f"{message}.*'w'"):
            complete(image, image[..., :1])


@pytest.mark.parametrize("errors", [(0.01, 0), (0, 0.01)])
def test_largest_difference_covers_both_check_shapes(errors):
    errors = iter(errors)

    def complete(image, mask):
        completed = inpainter("official").predict(image, mask).completed.copy()
        completed[-1, -1, -1, -1] -= next(errors)
        return completed

    difference = command.largest_difference(complete, model("official"))
    assert difference == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize("suffix", command.FORMATS)
def test_export_that_differs_from_the_model_is_not_written(folder, suffix, monkeypatch, capsys):
    kind, output = command.FORMATS[suffix], folder / f"differs{suffix}"
    source = folder / "official.safetensors"
    monkeypatch.setattr(kind, "save", lambda path, model: path.write_text("wrong"))
    monkeypatch.setattr(kind, "load", lambda path: path.read_text())
    output.write_text("precious")
    for difference in (2 * kind.TOLERANCE, float("nan")):
        monkeypatch.setattr(command, "largest_difference", lambda *_, x=difference: x)
        assert run(source, "--output", output, "--overwrite") == 1
        assert f"differs{suffix} is not written: its outputs differ from" in capsys.readouterr().err
        assert output.read_text() == "precious"
        assert list(folder.glob("differs*")) == [output]
    output.unlink()


def test_command_refuses_invalid_arguments(folder, capsys, monkeypatch):
    source, output = folder / "official.safetensors", folder / "refused.stablehlo"

    def refused(*arguments):
        assert run(*arguments) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert not list(folder.glob("refused*"))
        return line

    assert "must end in .stablehlo or .onnx" in refused(source, "--output", folder / "refused.pb")
    line = refused(source, "--output", output, "--opset", 17)
    assert "--opset is not supported for .stablehlo; leave it out" in line
    line = refused(source, "--output", folder / "refused.onnx", "--weights", "baked")
    assert "--weights is not supported for .onnx" in line
    line = refused(source, "--output", output, "--dtype", "float16")
    assert "--dtype is not supported for .stablehlo; leave it out" in line
    line = refused(source, "--output", output, "--platforms", "cuda")
    assert "--platforms must include cpu" in line
    line = refused(source, "--output", output, "--platforms", "cpu,gpu")
    assert "Unknown platform gpu; choose from cpu, cuda, rocm, tpu" in line
    line = refused(folder / "absent.safetensors", "--output", output)
    assert "There is no model file" in line
    line = refused(source, "--output", source / "refused.stablehlo")
    assert "refused.stablehlo cannot be written" in line
    with pytest.raises(UsageError, match="safetensors is not a file written by jax.export"):
        stablehlo.load(source)
    for name, suffix in (("onnx", ".onnx"), ("flatbuffers", ".stablehlo")):
        monkeypatch.setitem(sys.modules, name, None)
        line = refused(source, "--output", folder / f"refused{suffix}")
        assert f"Export needs the package {name}: pip install 'deepfill_jax[export]'" in line

    output.write_text("precious")
    assert run(source, "--output", output) == 2
    assert "already exists; --overwrite" in capsys.readouterr().err
    assert output.read_text() == "precious"


@pytest.mark.parametrize("name", NAMES)
def test_onnx_matches_the_model(folder, name, capsys):
    library = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    output = folder / f"{name}.onnx"
    assert run(folder / f"{name}.safetensors", "--output", output) == 0
    assert "from the model, at 3x80x72 and 3x80x72" in capsys.readouterr().out
    assert_completes(onnx.load(output), name, atol=1e-4)

    proto = library.load(output)
    assert [x.version for x in proto.opset_import] == [17]
    metadata = {x.key: x.value for x in proto.metadata_props}
    assert metadata.pop("model_license") == METADATA["license"]
    expected = METADATA | {"architecture": name, "width": 2, "guided": False}
    assert {key: json.loads(x) for key, x in metadata.items()} == {"deepfill_jax": expected}
    # Initializers have the names of the model file's tensors.
    assert "coarse/encode1/kernel" in {x.name for x in proto.graph.initializer}


@pytest.mark.parametrize("opset", [onnx.OPSETS[0], onnx.OPSETS[-1]])
def test_onnx_matches_the_model_in_oldest_and_newest_opset(folder, opset):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    for name in NAMES:
        onnx.save(folder / "other.onnx", model(name), opset=opset)
        assert_completes(onnx.load(folder / "other.onnx"), name, atol=1e-4)
    with pytest.raises(UsageError, match="Opset .* is not supported; choose 13 to 21"):
        onnx.save(folder / "other.onnx", model("official"), opset=onnx.OPSETS.stop)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_is_finite_for_zero_weights_and_for_a_full_mask(folder, name):
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    random = model(name)
    zero = dataclasses.replace(random, generator=jax.tree.map(np.zeros_like, random.generator))
    image, mask = make_batch(*SHAPE)
    for tested, hole in ((zero, mask), (random, np.ones_like(mask))):
        onnx.save(folder / "finite.onnx", tested)
        completed = onnx.load(folder / "finite.onnx")(image, hole)
        expected = Inpainter(tested).predict(image, hole).completed
        assert np.isfinite(expected).all()
        np.testing.assert_allclose(completed, expected, rtol=0, atol=1e-4)


@pytest.mark.parametrize("name", NAMES)
def test_onnx_nodes_and_values_have_the_names_of_modules(tmp_path, name):
    library = pytest.importorskip("onnx")
    onnx.save(tmp_path / "named.onnx", model(name))
    graph = library.load(tmp_path / "named.onnx").graph
    names = [node.name for node in graph.node]
    assert len(set(names)) == len(names) and all(names)
    modules = {path.rpartition("/")[0] for path in flatten(model(name).generator)}
    assert {x.removesuffix("/Conv") for x in names if x.removesuffix("/Conv") in modules} == modules
    attention = [x for x in names if x.startswith("refine/attention_branch/contextual_attention/")]
    assert "refine/attention_branch/contextual_attention/Softmax" in attention
    for node in graph.node[:-1]:
        assert list(node.output) == [f"{node.name}:{i}" for i in range(len(node.output))]
    assert list(graph.node[-1].output) == ["completed"]


@pytest.mark.parametrize("name", NAMES)
def test_float16_onnx_is_close_and_keeps_attention_in_float32(folder, name, capsys):
    library = pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    output = folder / f"{name}.half.onnx"
    assert run(folder / f"{name}.safetensors", "--output", output, "--dtype", "float16") == 0
    difference = float(capsys.readouterr().out.splitlines()[1].split()[1])
    assert 1e-4 < difference < onnx.HALF_TOLERANCE  # Not 0, so the rounding took place.
    assert_completes(onnx_stepwise.load(output), name, atol=onnx.HALF_TOLERANCE)
    assert_completes(onnx.load(output), name, atol=onnx.HALF_TOLERANCE)

    proto = library.shape_inference.infer_shapes(library.load(output))
    values = [*proto.graph.value_info, *proto.graph.input, *proto.graph.output]
    types = {x.name: x.type.tensor_type.elem_type for x in values}
    types |= {x.name: x.data_type for x in proto.graph.initializer}
    half, single = library.TensorProto.FLOAT16, library.TensorProto.FLOAT
    assert {types[x] for x in ("image", "mask", "completed")} == {single}
    for node in proto.graph.node:
        in_attention = "/contextual_attention/" in node.name
        if node.op_type in ("Conv", "Elu", "Relu", "Sigmoid") and not in_attention:
            assert {types[x] for x in [*node.input, *node.output]} == {half}, node.name
        if node.op_type in ("Softmax", "MatMul", "ReduceSum", "Sqrt", "ConvTranspose", "Tanh"):
            assert types[node.output[0]] == single, node.name


def test_weights_beyond_float16_are_refused_by_name(tmp_path):
    pytest.importorskip("onnx")
    generator = jax.tree.map(np.array, model("official").generator)
    generator["coarse"]["encode2"]["bias"][0] = 7e4
    large = dataclasses.replace(model("official"), generator=generator)
    onnx.save(tmp_path / "large.onnx", large)
    with pytest.raises(UsageError, match=r"coarse/encode2/bias has values of up to 7e\+04, and fl"):
        onnx.save(tmp_path / "large.onnx", large, dtype="float16")


def test_loading_a_file_that_is_not_onnx_is_refused(folder):
    pytest.importorskip("onnxruntime")
    with pytest.raises(UsageError, match="safetensors cannot be loaded by onnxruntime"):
        onnx.load(folder / "official.safetensors")


@pytest.mark.parametrize("suffix", [".stablehlo", ".onnx"])
def test_exported_guided_model_uses_the_sketch_inside_the_hole_only(tmp_path, suffix):
    # With a higher gain, rounding is amplified beyond the command's tolerance.
    model = make_model("official", guided=True, gain=2.0)
    weights.save(tmp_path / "model.safetensors", model)
    output = tmp_path / f"model{suffix}"
    run(
        tmp_path / "model.safetensors", "--output", output
    )  # The command compares the outputs with the model's.
    complete = command.FORMATS[suffix].load(output)
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 72, 64, 3)).astype(np.float32)
    mask = np.zeros((1, 72, 64, 1), np.float32)
    mask[:, 20:50, 20:50] = 1
    outside = complete(image, mask, 1 - mask)
    np.testing.assert_array_equal(outside, complete(image, mask, 0 * mask))
    assert np.abs(np.asarray(complete(image, mask, mask)) - outside).max() > 1e-2
