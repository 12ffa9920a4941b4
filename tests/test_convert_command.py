"""The command that converts weights: outputs, flags, report, errors."""

import dataclasses
import hashlib
from functools import partial

import jax
import numpy as np
import pytest
import references
from mmagic_files import META, TABLES, narrow, save, state_dict

from deepfill_jax import weights
from deepfill_jax.convert import __main__ as command
from deepfill_jax.convert import layout, mmagic, sources
from deepfill_jax.errors import UsageError
from deepfill_jax.tensors import PARAMS, flatten, subtree


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


def test_replace_detail_flag_is_kept_by_later_conversions(tmp_path):
    weights.save(tmp_path / "a.safetensors", references.mmagic_model())
    for source, target, *flags in (("a", "b", "--replace-detail"), ("b", "c"), ("a", "d")):
        output = tmp_path / f"{target}.safetensors"
        assert run(tmp_path / f"{source}.safetensors", "--output", output, *flags) == 0
    found = {name: weights.load(tmp_path / f"{name}.safetensors").metadata for name in "bcd"}
    assert found["b"]["replace_detail"] is found["c"]["replace_detail"] is True
    assert "replace_detail" not in found["d"]


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
