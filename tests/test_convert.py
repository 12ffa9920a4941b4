"""Conversion of the references' weights: all tensors are mapped, and BGR becomes RGB."""

import dataclasses
import hashlib
import os
import pickle
import sys
import types
from functools import partial

import jax
import numpy as np
import pytest
import references
import torch_files

from deepfill_jax import image as pixels
from deepfill_jax import weights
from deepfill_jax.app.registry import available
from deepfill_jax.convert import __main__ as command
from deepfill_jax.convert import layout, mmagic, nipponjo, releases, sources, tensorflow1
from deepfill_jax.errors import UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.models import MMAGIC, OFFICIAL, Discriminator, Generator, make_variant
from deepfill_jax.tensors import PARAMS, flatten, subtree, unflatten

META = {"epoch": 1, "iter": 100_000, "mmcv_version": "1.0.5", "time": "Fri Jun 19 11:20:03 2020"}


def state_dict():
    return references.mmagic_tensors(discriminator_gain=references.GENERATOR_GAIN)


def unflipped(table, tensors):
    """Converts a reference's tensors to our parameter tree, but still for BGR images."""
    return unflatten({n: o.layout.to_ours(tensors[o.name]) for n, o in table.items()})


def make_batch():
    rng = np.random.default_rng(0)
    image = rng.uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    mask = np.zeros((1, 64, 64, 1), np.float32)
    mask[:, 20:40, 8:50] = 1
    return image, mask


@pytest.mark.parametrize(
    "variant, table, tensors, converted",
    [
        (MMAGIC, mmagic.make_table(discriminator=False), state_dict, references.mmagic_model),
        (
            OFFICIAL,
            tensorflow1.make_table(discriminator=False),
            references.tf_tensors,
            references.official_model,
        ),
    ],
    ids=["mmagic", "official"],
)
def test_converted_generator_matches_reference_on_rgb_images(variant, table, tensors, converted):
    theirs = unflipped(table, tensors())["generator"]
    image, mask = make_batch()
    masked = pixels.mask_out(image, mask)
    apply = jax.jit(Generator(variant).apply)
    ours = apply({"params": converted().generator}, masked, mask)
    expected = apply({"params": theirs}, masked[..., ::-1], mask)
    for x, y in zip(ours, expected, strict=True):
        # The sums over three channels have another order; stage 2 is more sensitive to rounding.
        np.testing.assert_allclose(x, y[..., ::-1], atol=1e-3)
    np.testing.assert_allclose(ours.coarse, expected.coarse[..., ::-1], atol=5e-5)
    assert np.abs(ours.coarse - expected.coarse).max() > 0.1  # The order of colours matters.


@pytest.mark.parametrize("update_spectral", [False, True])
def test_converted_discriminator_matches_reference_on_rgb_images(update_spectral):
    theirs = unflipped(mmagic.make_table(discriminator=True), state_dict())["discriminator"]
    ours = references.mmagic_model().discriminator
    image, mask = make_batch()

    @jax.jit
    def apply(variables, image):
        network = Discriminator(MMAGIC)
        return network.apply(
            variables, image, mask, update_spectral=update_spectral, mutable="spectral"
        )

    scores, updated = apply(ours, image)
    expected, expected_updated = apply(theirs, image[..., ::-1])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, atol=1e-5 * scale)
    assert np.abs(apply(theirs, image)[0] - expected).max() > 1e-2 * scale
    for layer, vectors in updated["spectral"].items():
        u = expected_updated["spectral"][layer]["u"]
        np.testing.assert_allclose(vectors["u"], u, atol=1e-5)


def test_flip_bgr_is_its_own_inverse():
    tensors = flatten(weights.networks(references.official_model()))
    again = layout.flip_bgr(layout.flip_bgr(tensors))
    jax.tree.map(np.testing.assert_array_equal, again, tensors)


TABLES = {
    "mmagic": mmagic.make_table(discriminator=True),
    "tf": tensorflow1.make_table(discriminator=True),
    "nipponjo": nipponjo.make_table(nipponjo.LAYERS, discriminator=True),
    "nipponjo_tf": nipponjo.make_table(nipponjo.TF_LAYERS, discriminator=True),
}


@pytest.mark.parametrize("reference", TABLES)
def test_table_uses_every_tensor_once_except_constants(reference):
    origins = [origin.name for origin in TABLES[reference].values()]
    assert len(origins) == len(set(origins))
    unused = references._shapes(reference).keys() - set(origins)
    constants = {"mmagic": {mmagic.FUSE_KERNEL}, "nipponjo": {nipponjo.CONSTANT}}
    assert unused == constants.get(reference, set())


@pytest.mark.parametrize(
    "convert, make_tensors",
    [(mmagic.from_state_dict, state_dict), (tensorflow1.from_variables, references.tf_tensors)],
    ids=["mmagic", "official"],
)
def test_error_lists_missing_extra_and_misshapen_tensors(convert, make_tensors):
    tensors = make_tensors()
    missing, misshapen, flat = [name for name in tensors if "bias" not in name][:3]
    del tensors[missing]
    tensors[misshapen] = tensors[misshapen][:, :, 1:]
    tensors[flat] = np.zeros(7, np.float32)
    extra = f"{missing}.more"
    tensors[extra] = np.zeros(3, np.float32)
    with pytest.raises(UsageError) as error:
        convert(tensors, source="theirs.pth")
    message = str(error.value)
    assert message.startswith("theirs.pth holds the weights of another network. missing: ")
    assert f"missing: {missing}; extra: {extra}; misshapen: " in message
    assert f"{misshapen} (is " in message and f"{flat} (is (7,), must be " in message


def test_error_lists_power_vectors_of_another_size():
    tensors = state_dict()
    tensors["disc.conv2.conv.weight_v"] = np.zeros(48 * 25, np.float32)
    tensors["disc.conv3.conv.weight_v"] = np.zeros(128 * 9, np.float32)
    with pytest.raises(UsageError, match=r"conv2.conv.weight_v \(is .*conv3.conv.weight_v \(is "):
        mmagic.from_state_dict(tensors, source="theirs.pth")


def save(path, tensors, *, meta=META, format="zip", **more):
    """Writes tensors as MMagic does, in torch's zip format or in the older format."""
    return torch_files.save(path, {"meta": meta, "state_dict": tensors, **more}, format=format)


def run(*arguments):
    """Runs the command in this process and returns its exit code."""
    try:
        command.main([f"{argument}" for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


def assert_same(ours, theirs):
    assert ours.variant == theirs.variant
    for x, y in ((ours.generator, theirs.generator), (ours.discriminator, theirs.discriminator)):
        jax.tree.map(np.testing.assert_array_equal, x, y)


def test_command_converts_pth_file_and_overwrites_only_if_asked(tmp_path, capsys):
    source = save(tmp_path / "deepfillv2.pth", state_dict(), format="legacy")
    output = tmp_path / "model.safetensors"
    assert run(source, "--output", output) == 0
    *lines, last = capsys.readouterr().out.splitlines()
    description = dict(line.split(maxsplit=1) for line in lines)
    assert description == {
        "architecture": "mmagic",
        "width": "24",
        "discriminator_width": "64",
        "guided": "False",
        "parameters.generator": "4,414,908",
        "parameters.discriminator": "5,946,816",
        "adam_updates": "none",
        "dtype": "float32",
        "converted_from": "MMagic",
        "release": "none",
        "step": "100,000",
    }
    assert last.startswith(f"{output}: 41.")
    loaded = weights.load(output)
    assert_same(loaded, references.mmagic_model())
    assert loaded.metadata == {"converted_from": "MMagic", "release": None, "step": 100_000}

    before = output.read_bytes()
    assert run(source, "--output", output, "--dtype", "float16") == 2
    assert f"{output} already exists; --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert run(source, "--output", output, "--dtype", "float16", "--overwrite") == 0
    assert output.stat().st_size < len(before) - 8_000_000


@pytest.mark.torch
def test_command_converts_bare_state_dict_of_generator_in_bfloat16(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    tensors = {
        # Files may contain bfloat16, which numpy does not have.
        name: torch.nn.Parameter(torch.from_numpy(x).to(torch.bfloat16))
        for name, x in state_dict().items()
        if name.startswith("generator.")
    }
    tensors["data_preprocessor.mean"] = torch.full((3, 1, 1), 127.5)
    torch.save(tensors, tmp_path / "bare.pt")
    assert run(tmp_path / "bare.pt", "--output", tmp_path / "model.safetensors") == 0
    output = capsys.readouterr().out
    assert "parameters.discriminator  none" in output and "bfloat16" in output
    loaded, expected = weights.load(tmp_path / "model.safetensors"), references.mmagic_model()
    assert loaded.discriminator is None
    close = partial(np.testing.assert_allclose, rtol=2**-8)
    jax.tree.map(close, loaded.generator, expected.generator)


NARROW = make_variant("mmagic", width=2, discriminator_width=2)


def narrow():
    return references.narrow_tensors("mmagic", TABLES["mmagic"], NARROW)


@pytest.mark.torch
def test_conversion_to_mmagic_and_back_is_lossless(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    tensors = state_dict()
    weights.save(tmp_path / "model.safetensors", references.mmagic_model())
    assert run(tmp_path / "model.safetensors", "--output", tmp_path / "back.pth") == 0
    written = torch.load(tmp_path / "back.pth", weights_only=True)["state_dict"]
    assert written.keys() == tensors.keys()
    tensors[mmagic.FUSE_KERNEL] = np.eye(3)[None, None]
    for name, x in tensors.items():
        np.testing.assert_array_equal(written[name], x)
    assert_same(sources.read(tmp_path / "back.pth").model, references.mmagic_model())


def test_writing_pth_of_another_architecture_is_refused(tmp_path):
    message = "x.pth cannot be written: .* 'official' has other layers .* write a .safetensors"
    with pytest.raises(UsageError, match=message):
        mmagic.write(tmp_path / "x.pth", references.official_model())


def test_other_projects_files_load_without_conversion(tmp_path):
    path = save(tmp_path / "theirs.pth", narrow())
    assert Inpainter.load(path, working_size=64).working_size == 64
    assert list(available([f"{path}"])) == ["theirs"]


def test_generator_without_discriminator_is_written_as_pth(tmp_path):
    save(tmp_path / "theirs.pth", narrow())
    model = sources.read(tmp_path / "theirs.pth").model
    mmagic.write(tmp_path / "back.pth", dataclasses.replace(model, discriminator=None))
    again = sources.read(tmp_path / "back.pth").model
    assert again.discriminator is None and again.metadata["step"] == 100_000
    jax.tree.map(np.testing.assert_array_equal, again.generator, model.generator)


def test_generator_only_flag_drops_the_discriminator(tmp_path, capsys):
    model = references.mmagic_model()
    weights.save(tmp_path / "both.safetensors", model)
    output = tmp_path / "generator.safetensors"
    assert run(tmp_path / "both.safetensors", "--output", output, "--generator-only") == 0
    assert "parameters.discriminator  none" in capsys.readouterr().out
    kept = weights.load(output)
    assert kept.discriminator is None
    jax.tree.map(np.testing.assert_array_equal, kept.generator, model.generator)


@pytest.mark.torch
def test_optimizer_state_flag_keeps_adam_moments(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    tensors = narrow()
    optimizer = {}
    for module, steps in {"generator": 2, "disc": 3}.items():
        trained = {
            name: x
            for name, x in tensors.items()
            if name.startswith(module) and not name.endswith(mmagic.VECTORS)
        }
        optimizer[module] = references.stepped_adam(trained, steps=steps)
    source, state = tmp_path / "iter_2.pth", {n: torch.tensor(x) for n, x in tensors.items()}
    torch.save({"meta": META, "state_dict": state, "optimizer": optimizer}, source)
    assert run(source, "--output", tmp_path / "plain.safetensors") == 0
    assert "Adam's moments are omitted; --optimizer-state keeps them" in capsys.readouterr().out
    assert run(source, "--output", tmp_path / "full.safetensors", "--optimizer-state") == 0
    assert "adam_updates.discriminator  3" in capsys.readouterr().out
    assert not weights.load(tmp_path / "plain.safetensors").moments
    moments = weights.load(tmp_path / "full.safetensors").moments
    expected = {}
    for name, origin in TABLES["mmagic"].items():
        x = references.gradient(origin.name, tensors[origin.name].shape)
        expected[name] = origin.layout.to_ours(x)
    expected = layout.flip_bgr(expected)
    for net, steps in {"generator": 2, "discriminator": 3}.items():
        assert moments[net]["count"] == steps
        mu, nu = (flatten(moments[net][moment]) for moment in ("mu", "nu"))
        assert mu.keys() == subtree(TABLES["mmagic"], PARAMS[net]).keys()
        for name in mu:
            x = expected[PARAMS[net] + name]
            np.testing.assert_allclose(mu[name], (1 - 0.9**steps) * x, rtol=1e-5)
            np.testing.assert_allclose(nu[name], (1 - 0.999**steps) * x**2, rtol=1e-3)


def test_report_has_a_line_for_every_tensor(tmp_path, capsys):
    source = save(tmp_path / "theirs.pth", narrow())
    report = tmp_path / "new" / "report.tsv"
    arguments = (source, "--output", tmp_path / "model.safetensors", "--overwrite", "--report")
    assert run(*arguments, report) == 0
    first, *rows = [line.split("\t") for line in report.read_text().splitlines()]
    assert first == ["source", "tensor", "shape", "sha256"]
    model = weights.load(tmp_path / "model.safetensors")
    tensors = flatten(weights.networks(model))
    assert {row[1] for row in rows} == tensors.keys()
    for theirs, ours, shape, digest in rows:
        assert theirs == TABLES["mmagic"][ours].name
        assert tuple(map(int, shape.split("x"))) == tensors[ours].shape
        assert hashlib.sha256(tensors[ours].tobytes()).hexdigest().startswith(digest)
    capsys.readouterr()
    assert run(*arguments, "-") == 0
    assert report.read_text() in capsys.readouterr().out


def test_license_flag_is_stored_in_metadata(tmp_path):
    source = save(tmp_path / "theirs.pth", narrow())
    output = tmp_path / "model.safetensors"
    assert run(source, "--output", output, "--license", "CC0 1.0") == 0
    assert weights.load(output).metadata["license"] == "CC0 1.0"


def test_published_file_is_recognised_by_its_digest(tmp_path, monkeypatch):
    path = save(tmp_path / "renamed.pth", narrow())
    digest = hashlib.sha256(path.read_bytes()).hexdigest()[:8]
    monkeypatch.setitem(releases.MMAGIC, digest, "published")
    assert sources.read(path).model.metadata["release"] == "published"


class HistoryBuffer:
    """Mimics mmengine's class, which contains arrays and references to its own methods."""

    def __init__(self):
        self._log_history, self._count_history = np.ones(3), np.ones(3, int)
        self._statistics_methods = {"mean": HistoryBuffer.mean}

    def mean(self):
        raise AssertionError


def test_mmengine_checkpoint_with_logs_is_converted(tmp_path, monkeypatch):
    module = types.ModuleType("mmengine.logging.history_buffer")
    module.HistoryBuffer = HistoryBuffer
    monkeypatch.setitem(sys.modules, module.__name__, module)
    monkeypatch.setattr(HistoryBuffer, "__module__", module.__name__)
    hub = {"log_scalars": {"loss": HistoryBuffer()}, "runtime_info": {"lr": np.float32(1e-4)}}
    with monkeypatch.context() as patched:
        patched.setitem(sys.modules, "mmengine", types.ModuleType("mmengine"))
        patched.setitem(sys.modules, "mmengine.logging", types.ModuleType("mmengine.logging"))
        path = save(tmp_path / "iter.pth", narrow(), message_hub=hub)
    assert b"getattr" in path.read_bytes()
    monkeypatch.delitem(sys.modules, module.__name__)
    assert sources.read(path).model.variant == NARROW


def test_weights_of_another_network_are_refused(tmp_path):
    layers = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias")
    path = save(tmp_path / "resnet.pth", {name: np.zeros((4, 4), np.float32) for name in layers})
    with pytest.raises(UsageError) as error:
        sources.read(path)
    assert str(error.value) == (
        f"{path} holds the weights of another network: none of the 84 expected tensors is among "
        "its 5, such as bn1.weight."
    )


@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {1: 2}}, None])
def test_files_without_tensors_are_refused(tmp_path, content):
    torch_files.save(tmp_path / "odd.pth", content)
    with pytest.raises(UsageError, match="none of the 84 expected tensors is among its 0"):
        sources.read(tmp_path / "odd.pth")


class Attack:
    """Creates a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.parametrize("format", torch_files.FORMATS)
def test_code_in_a_file_is_not_run(tmp_path, format):
    harmed = tmp_path / "harmed"
    pickle.loads(pickle.dumps(Attack(harmed)))
    harmed.rmdir()  # This fails if the attack did not create the folder.
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = tmp_path / "attack.pth"
    save(path, tensors, meta=Attack(harmed), format=format)
    with pytest.raises(UsageError, match="would run code when loaded, which is refused") as error:
        sources.read(path)
    assert "mkdir" in str(error.value)  # The message names the function that was not run.
    assert "\n" not in str(error.value)
    assert not harmed.exists()


@pytest.mark.parametrize("format", torch_files.FORMATS)
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, format, kept):
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = save(tmp_path / "cut.pth", tensors, format=format)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UsageError, match="cut.pth cannot be read as a PyTorch weights file"):
        sources.read(path)


@pytest.mark.parametrize("content", [b"hello\n", b"<!DOCTYPE html>", b"\x89PNG\r\n", b"version"])
def test_files_of_other_formats_are_refused(tmp_path, content):
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="other.pth cannot be read as a PyTorch weights file"):
        sources.read(path)


def test_command_refuses_unsupported_sources_outputs_and_flags(tmp_path, capsys):
    source, output = tmp_path / "theirs.pth", tmp_path / "model.safetensors"
    assert run("absent.onnx", "--output", output) == 2
    told = capsys.readouterr().err
    assert "There is no model file absent.onnx; models by name: scenes, faces, guided" in told
    (tmp_path / "theirs.onnx").write_text("another format")
    assert run(tmp_path / "theirs.onnx", "--output", output) == 2
    reason = (
        "theirs.onnx is not a supported source of weights. "
        "Give the name of a model (scenes, faces, guided), a model file"
    )
    assert reason in capsys.readouterr().err
    assert run(source, "--output", tmp_path / "model.npz") == 2
    assert "model.npz must end in .safetensors for a model file" in capsys.readouterr().err
    for flags in (["--optimizer-state"], ["--dtype", "float16"]):
        assert run(source, "--output", tmp_path / "back.pth", *flags) == 2
        assert (
            "back.pth is for MMagic, which takes float32 only and no optimizer state"
            in capsys.readouterr().err
        )
    assert not output.exists()


def test_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match="There is no file .*absent.pth"):
        sources.read(tmp_path / "absent.pth")
