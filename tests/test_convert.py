"""Conversion of the references' weights: all tensors are mapped, and BGR becomes RGB."""

import jax
import numpy as np
import pytest
import references
from mmagic_files import TABLES, state_dict

from deepfill_jax import image as pixels
from deepfill_jax import weights
from deepfill_jax.convert import layout, mmagic, nipponjo, tensorflow1
from deepfill_jax.errors import UsageError
from deepfill_jax.models import MMAGIC, OFFICIAL, Discriminator, Generator
from deepfill_jax.tensors import flatten, unflatten


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
