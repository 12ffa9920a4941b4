"""Weights of the references: every tensor finds its place, and BGR becomes RGB."""

import os
import pickle
import sys
from collections import OrderedDict
from functools import partial

import jax
import numpy as np
import pytest
import references

from deepfill_jax import image as pixels
from deepfill_jax import weights
from deepfill_jax.convert import __main__ as command
from deepfill_jax.convert import layout, mmagic, tensorflow1
from deepfill_jax.errors import UsageError
from deepfill_jax.models import MMAGIC, OFFICIAL, Discriminator, Generator

META = {"epoch": 1, "iter": 100_000, "mmcv_version": "1.0.5", "time": "Fri Jun 19 11:20:03 2020"}


def state_dict():
    return references.mmagic_tensors(discriminator_gain=references.GENERATOR_GAIN)


def tf_generator():
    return {k: x for k, x in references.tf_tensors().items() if k.startswith("inpaint_net/")}


def unflipped(table, tensors):
    """Our parameter tree of a reference's network as it is, on BGR images."""
    return weights.unflatten({n: o.transform(tensors[o.name]) for n, o in table.items()})


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
        (OFFICIAL, tensorflow1.make_table(), tf_generator, references.official_model),
    ],
    ids=["mmagic", "official"],
)
def test_a_converted_generator_is_the_reference_on_rgb(variant, table, tensors, converted):
    theirs = unflipped(table, tensors())["generator"]
    image, mask = make_batch()
    masked = pixels.mask_out(image, mask)
    apply = jax.jit(Generator(variant).apply)
    ours = apply({"params": converted().generator}, masked, mask)
    expected = apply({"params": theirs}, masked[..., ::-1], mask)
    for x, y in zip(ours, expected, strict=True):
        # Sums over three channels in another order; the second stage is the more sensitive.
        np.testing.assert_allclose(x, y[..., ::-1], atol=1e-3)
    np.testing.assert_allclose(ours.coarse, expected.coarse[..., ::-1], atol=5e-5)
    assert np.abs(ours.coarse - expected.coarse).max() > 0.1  # Colours do matter.


@pytest.mark.parametrize("update_spectral", [False, True])
def test_a_converted_discriminator_is_the_reference_on_rgb(update_spectral):
    theirs = unflipped(mmagic.make_table(discriminator=True), state_dict())["discriminator"]
    ours = references.mmagic_model().discriminator
    image, mask = make_batch()

    @jax.jit
    def apply(variables, image):
        network = Discriminator(MMAGIC)
        return network.apply(
            variables, image, mask, update_spectral=update_spectral, mutable="spectral"
        )

    scores, moved = apply(ours, image)
    expected, expected_moved = apply(theirs, image[..., ::-1])
    scale = np.abs(expected).max()
    np.testing.assert_allclose(scores, expected, atol=1e-5 * scale)
    assert np.abs(apply(theirs, image)[0] - expected).max() > 1e-2 * scale
    for layer, vectors in moved["spectral"].items():
        u = expected_moved["spectral"][layer]["u"]
        np.testing.assert_allclose(vectors["u"], u, atol=1e-5)


def test_flipping_twice_changes_nothing():
    tensors = weights.flatten({"generator": references.official_model().generator})
    again = layout.flip_bgr(layout.flip_bgr(tensors))
    jax.tree.map(np.testing.assert_array_equal, again, tensors)


def test_every_tensor_of_mmagic_is_used_once_or_a_constant():
    origins = [origin.name for origin in mmagic.make_table(discriminator=True).values()]
    assert len(origins) == len(set(origins))
    left = state_dict().keys() - set(origins)
    assert left == {"generator.stage2.contextual_attention_neck.contextual_attention.fuse_kernel"}
    assert all(any(constant in name for constant in mmagic.CONSTANTS) for name in left)


def test_every_tensor_of_the_releases_generator_is_used_once():
    origins = [origin.name for origin in tensorflow1.make_table().values()]
    assert len(origins) == len(set(origins))
    left = references.tf_tensors().keys() - set(origins)
    assert all(name.startswith("discriminator/") for name in left)


@pytest.mark.parametrize(
    "convert, make_tensors",
    [(mmagic.from_state_dict, state_dict), (tensorflow1.from_variables, tf_generator)],
    ids=["mmagic", "official"],
)
def test_differences_are_listed_by_their_names(convert, make_tensors):
    tensors = make_tensors()
    missing, misshapen, flat = [name for name in tensors if "bias" not in name][:3]
    del tensors[missing]
    tensors[misshapen] = tensors[misshapen][:, :, 1:]
    tensors[flat] = np.zeros(7, np.float32)
    tensors["one.more"] = np.zeros(3, np.float32)
    with pytest.raises(UsageError) as error:
        convert(tensors, source="theirs.pth")
    message = str(error.value)
    assert message.startswith("theirs.pth holds the weights of another network. missing: ")
    assert f"missing: {missing}; extra: one.more; misshapen: " in message
    assert f"{misshapen} (is " in message and f"{flat} (is (7,), must be " in message


def test_a_discriminator_of_another_width_is_misshapen():
    tensors = state_dict()
    tensors["disc.conv2.conv.weight_v"] = np.zeros(48 * 25, np.float32)
    tensors["disc.conv3.conv.weight_v"] = np.zeros(128 * 9, np.float32)
    with pytest.raises(UsageError, match=r"conv2.conv.weight_v \(is .*conv3.conv.weight_v \(is "):
        mmagic.from_state_dict(tensors, source="theirs.pth")


def save(path, tensors, *, meta=META, zipped=True):
    """Writes tensors as MMagic does, in the zip files of now or as files were before."""
    torch = pytest.importorskip("torch")
    tensors = OrderedDict((name, torch.from_numpy(x)) for name, x in tensors.items())
    checkpoint = {"meta": meta, "state_dict": tensors}
    torch.save(checkpoint, path, _use_new_zipfile_serialization=zipped)
    return path


def run(*arguments):
    """Runs the command in this process and returns its exit code."""
    try:
        command.main([f"{argument}" for argument in arguments])
    except SystemExit as end:
        return end.code
    return 0


@pytest.mark.torch
def test_command_converts_a_pth_file(tmp_path, capsys):
    source = save(tmp_path / "deepfillv2.pth", state_dict(), zipped=False)
    output = tmp_path / "model.safetensors"
    assert run(source, "--output", output) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [
        "architecture   mmagic",
        "generator      4,414,908 parameters",
        "discriminator  5,946,816 parameters",
    ]
    assert lines[3].startswith(f"{output}: 41.")

    loaded, expected = weights.load(output), references.mmagic_model()
    assert loaded.variant == MMAGIC and loaded.about == {"converted_from": "MMagic"}
    for ours, theirs in (
        (loaded.generator, expected.generator),
        (loaded.discriminator, expected.discriminator),
    ):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)

    before = output.read_bytes()
    assert run(source, "--output", output, "--dtype", "float16") == 2
    assert f"{output} exists already; --overwrite" in capsys.readouterr().err
    assert output.read_bytes() == before
    assert run(source, "--output", output, "--dtype", "float16", "--overwrite") == 0
    assert output.stat().st_size < len(before) - 8_000_000


@pytest.mark.torch
def test_a_generator_alone_in_a_bare_state_dict(tmp_path, capsys):
    torch = pytest.importorskip("torch")
    tensors = {
        # Of the types that tensors of a file can have; bfloat16 is unknown to numpy.
        name: torch.nn.Parameter(torch.from_numpy(x).to(torch.bfloat16))
        for name, x in state_dict().items()
        if name.startswith("generator.")
    }
    tensors["data_preprocessor.mean"] = torch.full((3, 1, 1), 127.5)
    torch.save(tensors, tmp_path / "bare.pt")
    assert run(tmp_path / "bare.pt", "--output", tmp_path / "model.safetensors") == 0
    assert "discriminator  none" in capsys.readouterr().out
    loaded, expected = weights.load(tmp_path / "model.safetensors"), references.mmagic_model()
    assert loaded.discriminator is None
    close = partial(np.testing.assert_allclose, rtol=2**-8)
    jax.tree.map(close, loaded.generator, expected.generator)


@pytest.mark.torch
def test_another_network_is_refused_in_a_sentence(tmp_path):
    layers = ("conv1.weight", "bn1.weight", "layer1.0.conv1.weight", "fc.weight", "fc.bias")
    path = save(tmp_path / "resnet.pth", {name: np.zeros((4, 4), np.float32) for name in layers})
    with pytest.raises(UsageError) as error:
        mmagic.read(path)
    assert str(error.value) == (
        f"{path} holds the weights of another network: none of the 84 expected tensors is among "
        "its 5, such as bn1.weight."
    )


@pytest.mark.torch
@pytest.mark.parametrize("content", [[1, 2], {"state_dict": [1]}, {"state_dict": {1: 2}}, None])
def test_files_without_tensors_are_refused(tmp_path, content):
    torch = pytest.importorskip("torch")
    torch.save(content, tmp_path / "odd.pth")
    with pytest.raises(UsageError, match="none of the 84 expected tensors is among its 0"):
        mmagic.read(tmp_path / "odd.pth")


class Attack:
    """Makes a folder when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return os.mkdir, (self.path,)


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [False, True])
def test_code_in_a_file_is_not_run(tmp_path, zipped):
    harmed = tmp_path / "harmed"
    pickle.loads(pickle.dumps(Attack(harmed)))
    harmed.rmdir()  # It works.
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = tmp_path / "attack.pth"
    save(path, tensors, meta=Attack(harmed), zipped=zipped)
    with pytest.raises(UsageError, match="would run code when loaded, which is refused") as error:
        mmagic.read(path)
    assert "mkdir" in str(error.value)  # What it would have run.
    assert "\n" not in str(error.value)
    assert not harmed.exists()


@pytest.mark.torch
@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("kept", [0, 1, 40, 0.5, 0.99])
def test_truncated_files_are_refused(tmp_path, zipped, kept):
    tensors = {"generator.stage1.encoder.enc1.conv.conv.bias": np.zeros(48, np.float32)}
    path = save(tmp_path / "cut.pth", tensors, zipped=zipped)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(kept * len(whole)) if isinstance(kept, float) else kept])
    with pytest.raises(UsageError, match="cut.pth cannot be read as a PyTorch weights file"):
        mmagic.read(path)


@pytest.mark.torch
@pytest.mark.parametrize("content", [b"hello\n", b"<!DOCTYPE html>", b"\x89PNG\r\n", b"version"])
def test_files_of_another_kind_are_refused(tmp_path, content):
    pytest.importorskip("torch")
    path = tmp_path / "other.pth"
    path.write_bytes(content)
    with pytest.raises(UsageError, match="other.pth cannot be read as a PyTorch weights file"):
        mmagic.read(path)


def test_command_names_what_it_cannot_do(tmp_path, capsys):
    source, output = tmp_path / "theirs.pth", tmp_path / "model.safetensors"
    assert run("theirs.onnx", "--output", output) == 2
    reason = "theirs.onnx is no known source of weights; known are the folders of training runs"
    assert reason in capsys.readouterr().err
    assert run(source, "--output", tmp_path / "model.npz") == 2
    assert "model.npz must end in .safetensors" in capsys.readouterr().err
    assert not output.exists()


@pytest.mark.torch
def test_a_missing_file_is_named(tmp_path):
    pytest.importorskip("torch")
    with pytest.raises(UsageError, match="There is no file .*absent.pth"):
        mmagic.read(tmp_path / "absent.pth")


def test_without_torch_it_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(UsageError, match=r"needs PyTorch: pip install 'deepfill_jax\[convert\]'"):
        mmagic.read(tmp_path / "theirs.pth")
