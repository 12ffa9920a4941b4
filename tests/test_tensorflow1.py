"""TF1 checkpoints: reading and conversion, and errors for damaged or unsupported ones."""

import struct
from functools import partial

import jax
import numpy as np
import pytest
import references
from references import golden, nhwc, rgb

from deepfill_jax import image, weights
from deepfill_jax.convert import releases, sources, tensor_bundle, tensorflow1
from deepfill_jax.convert.crc32c import crc32c, masked
from deepfill_jax.convert.guided import with_sketch_channels
from deepfill_jax.errors import UsageError
from deepfill_jax.models import OFFICIAL, Discriminator, Generator, make_variant
from deepfill_jax.tensors import expected_tensors, flatten


@pytest.mark.parametrize(
    "data, expected",
    [  # From RFC 3720, appendix B.4; the second is the usual check value of CRC catalogues.
        (b"", 0),
        (b"123456789", 0xE3069283),
        (bytes(32), 0x8A9136AA),
        (b"\xff" * 32, 0x62A8AB43),
        (bytes(range(32)), 0x46DD794E),
        (bytes(range(31, -1, -1)), 0x113FDB5C),
    ],
)
def test_crc32c_matches_published_values(data, expected):
    assert crc32c(data) == expected


def test_crc32c_matches_bytewise_algorithm_for_many_lengths():
    rng = np.random.default_rng(0)
    for length in [*range(70), 1000, 4097]:
        data = rng.bytes(length)
        register = 0xFFFFFFFF
        for byte in data:
            register ^= byte
            for _ in range(8):
                register = register >> 1 ^ (0x82F63B78 if register & 1 else 0)
        assert crc32c(data) == register ^ 0xFFFFFFFF


def varint(value):
    head = bytes([value & 127 | 128]) if value > 127 else b""
    return head + varint(value >> 7) if head else bytes([value])


def field(number, value):
    """Encodes a field of a protocol buffer: an int as varint, (int,) as four bytes, or bytes."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, tuple):
        return varint(number << 3 | 5) + struct.pack("<I", *value)
    return varint(number << 3 | 2) + varint(len(value)) + value


def shape_of(*sizes):
    return b"".join(field(2, field(1, size)) for size in sizes)


def block(pairs, *, kind=0):
    """Encodes a block without shared keys: its content, and the content with its trailer."""
    content = b"".join(
        b"\0" + varint(len(key)) + varint(len(value)) + key + value for key, value in pairs
    )
    content += struct.pack("<II", 0, 1)
    trailer = bytes([kind]) + struct.pack("<I", masked(crc32c(content + bytes([kind]))))
    return content, content + trailer


def table(pairs, *, kind=0):
    """Encodes an index file."""
    content, data = block(pairs, kind=kind)
    handle = varint(0) + varint(len(content))
    offset = len(data)
    content, more = block([(b"\xff", handle)])
    footer = varint(0) + varint(0) + varint(offset) + varint(len(content))
    return data + more + footer.ljust(40, b"\0") + struct.pack("<Q", tensor_bundle.MAGIC)


DATA = np.arange(6, dtype=np.float32).tobytes()


def entry(*, dtype=1, shape=(2, 3), shard=0, offset=0, size=24, checksum=None, more=b""):
    checksum = masked(crc32c(DATA)) if checksum is None else checksum
    numbers = field(1, dtype) + field(3, shard) + field(4, offset) + field(5, size)
    return numbers + field(2, shape_of(*shape)) + field(6, (checksum,)) + more


HEADER = field(1, 1) + field(2, 0) + field(3, field(1, 1))


def write(folder, pairs=None, *, data=DATA, kind=0):
    pairs = [(b"", HEADER), (b"x", entry())] if pairs is None else pairs
    (folder / "snap.index").write_bytes(table(pairs, kind=kind))
    (folder / "snap.data-00000-of-00001").write_bytes(data)
    return folder / "snap"


def test_hand_written_bundle_is_read(tmp_path):
    bundle = tensor_bundle.Bundle(write(tmp_path))
    np.testing.assert_array_equal(bundle.read("x"), [[0, 1, 2], [3, 4, 5]])


@pytest.mark.parametrize(
    "pairs, message",
    [
        ([(b"x", entry())], "snap.index is damaged: it cannot be decoded"),
        ([(b"", b"\x0b"), (b"x", entry())], "snap.index is damaged: it cannot be decoded"),
        ([(b"", HEADER), (b"x", b"\x08")], "snap.index is damaged: it cannot be decoded"),
        ([(b"", HEADER), (b"\xff", entry())], "snap.index is damaged: it cannot be decoded"),
        ([(b"", field(1, 1) + field(2, 1))], "snap.index is big-endian; write it on a little-end"),
        ([(b"", field(1, 2))], "There is no file .*snap.data-00000-of-00002, but snap.index"),
        ([(b"", HEADER), (b"x", entry(dtype=7))], "stores x in a data type that weights do not"),
        ([(b"", HEADER), (b"x", entry(more=field(7, b"")))], "stores x in slices, which is not"),
        ([(b"", HEADER), (b"x", entry(shard=1))], "the shard of x does not exist"),
        ([(b"", HEADER), (b"x", entry(offset=1))], "snap.data-00000-of-00001 is truncated: it en"),
        ([(b"", HEADER), (b"x", entry(size=2**60))], "is truncated: it ends before the end of x"),
        ([(b"", HEADER), (b"x", entry(checksum=7))], "00001 is damaged: x fails its checksum"),
        ([(b"", HEADER), (b"x", entry(shape=(7,)))], r"damaged: x of shape \(7,\) has 24 bytes"),
    ],
)
def test_error_names_the_fault_of_a_bundle(tmp_path, pairs, message):
    with pytest.raises(UsageError, match=message):
        tensor_bundle.Bundle(write(tmp_path, pairs)).read("x")


def test_compressed_index_is_refused(tmp_path):
    with pytest.raises(UsageError, match="snap.index is compressed, which is not supported"):
        tensor_bundle.Bundle(write(tmp_path, kind=1))


def test_every_changed_bit_and_every_truncation_is_detected(tmp_path):
    prefix = write(tmp_path)
    for path in (tmp_path / "snap.index", tmp_path / "snap.data-00000-of-00001"):
        whole = path.read_bytes()
        footer = len(whole) - (tensor_bundle.FOOTER_BYTES if path.suffix == ".index" else 0)
        for position in range(footer):
            path.write_bytes(
                whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :]
            )
            with pytest.raises(UsageError, match="is damaged"):
                tensor_bundle.Bundle(prefix).read("x")
        for length in range(len(whole)):
            path.write_bytes(whole[:length])
            with pytest.raises(UsageError, match="is truncated"):
                tensor_bundle.Bundle(prefix).read("x")
        path.write_bytes(whole)


def test_missing_files_are_named(tmp_path):
    prefix = write(tmp_path)
    with pytest.raises(UsageError, match="There is no file .*other.index"):
        sources.read(tmp_path / "other.index")
    (tmp_path / "snap.data-00000-of-00001").unlink()
    with pytest.raises(UsageError, match="There is no file .*snap.data-00000-of-00001"):
        sources.read(prefix)


def test_checkpoint_is_found_by_prefix_file_or_folder(tmp_path):
    prefix = write(tmp_path)
    for suffix in ("", ".index", ".meta", ".data-00000-of-00001"):
        assert tensor_bundle.find_prefix(tmp_path / f"snap{suffix}") == prefix
    assert tensor_bundle.find_prefix(tmp_path) == prefix  # The folder has only one.
    assert tensor_bundle.find_prefix(tmp_path / "snap.pb") is None
    (tmp_path / "snap-2.index").touch()
    with pytest.raises(UsageError, match="has 2 checkpoints; name one of them, such as .*snap"):
        tensor_bundle.find_prefix(tmp_path)
    for name, prefix in {"checkpoint.txt": "snap-2", "checkpoint": "/home/x/logs/snap"}.items():
        text = f'model_checkpoint_path: "{prefix}"\nall_model_checkpoint_paths: "snap-1"\n'
        (tmp_path / name).write_text(text)
        assert tensor_bundle.find_prefix(tmp_path) == tmp_path / prefix.split("/")[-1]


VARIANT = make_variant("official", width=2, discriminator_width=2)


def variables(*, updates=None):
    """Returns the variables of a narrow network, named and shaped as in the TF1 release."""
    tensors = references.narrow_tensors("tf", tensorflow1.make_table(discriminator=True), VARIANT)
    others = {"global_step": np.int32(40), "lr": np.float32(1e-4)}
    if updates is not None:
        trained = {k: x for k, x in tensors.items() if not k.endswith("/u")}
        others |= {f"{k}/Adam": 2 * x for k, x in trained.items()}
        others |= {f"{k}/Adam_1": x**2 for k, x in trained.items()}
        others["beta1_power"] = np.float32(0.5 ** (updates + 1))
        others["beta2_power"] = np.float32(0.999 ** (updates + 1))
    return tensors | others


def save(prefix, tensors):
    tf = pytest.importorskip("tensorflow")
    tf.raw_ops.SaveV2(
        prefix=str(prefix),
        tensor_names=list(tensors),
        shape_and_slices=[""] * len(tensors),
        tensors=list(tensors.values()),
    )
    return prefix


def test_checkpoint_written_by_tensorflow_is_read_exactly(tmp_path):
    expected = variables(updates=80) | {
        "other/int64": np.arange(3),
        "other/float64": np.ones((2, 0, 3)),
        "other/scalar": np.int32(1),
    }
    bundle = tensor_bundle.Bundle(save(tmp_path / "snap-40", expected))
    assert bundle.entries.keys() == expected.keys()
    for name, x in expected.items():
        tensor = bundle.read(name)
        assert tensor.dtype == np.asarray(x).dtype
        np.testing.assert_array_equal(tensor, x, strict=False)
        assert tensor.shape == np.shape(x)


def test_networks_moments_and_metadata_of_a_checkpoint_are_converted(tmp_path):
    tensors = variables(updates=80)
    conversion = sources.read(save(tmp_path / "snap-40", tensors))
    model = conversion.model
    assert model.variant == VARIANT
    assert model.metadata == {
        "converted_from": "generative_inpainting (TF1)",
        "release": None,
        "step": 40,
    }
    assert [path.name for path in conversion.files] == [
        "snap-40.index",
        "snap-40.data-00000-of-00001",
    ]
    expected = tensorflow1.from_variables(tensors, source="").model
    for ours, theirs in ((model.generator, expected.generator), (model.moments, expected.moments)):
        jax.tree.map(np.testing.assert_array_equal, ours, theirs)
    for net in ("generator", "discriminator"):
        params = model.generator if net == "generator" else model.discriminator["params"]
        moments = model.moments[net]
        assert moments["count"] == 80
        jax.tree.map(lambda m, x: np.testing.assert_array_equal(m, 2 * x), moments["mu"], params)
        jax.tree.map(lambda m, x: np.testing.assert_array_equal(m, x**2), moments["nu"], params)


def test_adam_count_makes_bias_correction_vanish_when_beta2_power_is_zero():
    tensors = variables(updates=0) | {"beta2_power": np.float32(0)}
    model = tensorflow1.from_variables(tensors, source="").model
    count = int(model.moments["generator"]["count"])
    assert np.float32(1) - np.float32(0.999) ** count == 1
    model = tensorflow1.from_variables(tensors | {"global_step": 664_000}, source="").model
    assert model.moments["discriminator"]["count"] == model.metadata["step"] == 664_000


def test_computed_power_vectors_match_a_power_iteration():
    discriminator = tensorflow1.from_variables(variables(), source="").model.discriminator
    arguments = np.zeros((1, 64, 64, 3)), np.zeros((1, 64, 64, 1))
    iterate = jax.jit(
        partial(Discriminator(VARIANT).apply, update_spectral=True, mutable="spectral")
    )
    _, updated = iterate(discriminator, *arguments)
    for layer, vectors in discriminator["spectral"].items():
        np.testing.assert_allclose(vectors["v"], updated["spectral"][layer]["v"], atol=1e-6)


def test_converted_checkpoint_matches_tf1_release_outputs(tmp_path):
    model = sources.read(save(tmp_path / "snap-0", references.tf_tensors())).model
    arrays = golden("tf_gen_g22_b1_72x72")
    mask = nhwc(arrays["mask"])
    predicted = jax.jit(Generator(OFFICIAL).apply)(
        {"params": model.generator}, image.mask_out(rgb(arrays["image"]), mask), mask
    )
    np.testing.assert_allclose(predicted.refined, rgb(arrays["stage2"]), atol=1e-3)
    arrays = golden("tf_disc_b2_64")
    variables = model.discriminator
    score = jax.jit(
        partial(Discriminator(OFFICIAL).apply, update_spectral=True, mutable="spectral")
    )
    for iteration in (1, 2):
        scores, updated = score(variables, rgb(arrays["image"]), nhwc(arrays["mask"]))
        variables = {**variables, **updated}
        np.testing.assert_allclose(scores.reshape(2, -1), arrays[f"out_{iteration}"], atol=1e-5)


def test_guided_network_is_recognised(tmp_path):
    tensors = variables()
    first, patch = "inpaint_net/conv1/kernel", "discriminator/sn_patch_gan/conv1/kernel"
    for name, channel in ((first, 3), (patch, 4)):
        tensors[name] = np.insert(tensors[name], channel, 7.0, axis=2)
    model = sources.read(save(tmp_path / "snap-40", tensors)).model
    assert model.variant == make_variant("official", width=2, discriminator_width=2, guided=True)
    assert (model.generator["coarse"]["encode1"]["kernel"][:, :, 3] == 7).all()
    assert (model.discriminator["params"]["patch1"]["kernel"][:, :, 4] == 7).all()
    # All other channels have the same order as in an unguided network.
    plain = sources.read(save(tmp_path / "snap-1", variables())).model
    widened = with_sketch_channels(plain)
    kernel = np.array(model.generator["coarse"]["encode1"]["kernel"])
    kernel[:, :, 3] = 0
    np.testing.assert_array_equal(kernel, widened.generator["coarse"]["encode1"]["kernel"])
    del tensors["inpaint_net/conv3/bias"]
    with pytest.raises(UsageError, match="missing: inpaint_net/conv3/bias"):
        sources.read(save(tmp_path / "snap-2", tensors))


def test_releases_are_recognised_by_names_and_checksums(tmp_path, monkeypatch):
    tensors = variables()
    checksums = {k: masked(crc32c(np.asarray(x).tobytes())) for k, x in tensors.items() if "/" in k}
    digests = (
        releases.digest({k: x for k, x in checksums.items() if k.startswith(scope)})
        for scope in ("inpaint_net/", "discriminator/")
    )
    monkeypatch.setitem(releases.TF1, "seeded", releases.Tf1Release(*digests))
    metadata = sources.read(save(tmp_path / "snap-1", tensors)).model.metadata
    assert metadata["release"] == "seeded" and metadata["license"].startswith("CC BY-NC 4.0")
    generator = {k: x for k, x in tensors.items() if not k.startswith("discriminator/")}
    assert sources.read(save(tmp_path / "snap-2", generator)).model.metadata["release"] == "seeded"
    bias = tensors["discriminator/sn_patch_gan/conv3/bias"]
    tensors["discriminator/sn_patch_gan/conv3/bias"] = bias + 1
    assert sources.read(save(tmp_path / "snap-3", tensors)).model.metadata["release"] is None


def test_folder_without_checkpoint_is_refused(tmp_path):
    with pytest.raises(UsageError, match="is not a supported source of weights"):
        sources.read(tmp_path)


def test_checkpoint_of_another_network_is_refused(tmp_path):
    prefix = write(tmp_path)
    with pytest.raises(UsageError, match="none of its 1 tensors is named inpaint_net/"):
        sources.read(prefix)


def test_converted_tensors_have_the_shapes_of_the_architecture():
    model = tensorflow1.from_variables(variables(), source="").model
    shapes = expected_tensors(VARIANT, discriminator=True)
    tensors = flatten(weights.networks(model))
    assert {name: x.shape for name, x in tensors.items()} == shapes
