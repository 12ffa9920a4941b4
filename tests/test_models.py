"""Networks compared with both references: parameter counts, layers, outputs and gradients."""

import dataclasses
import functools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import references
from jax import lax
from references import golden, nhwc, random_variables, rgb

from deepfill_jax import image
from deepfill_jax.errors import UsageError
from deepfill_jax.models import MMAGIC, OFFICIAL, Discriminator, Generator, layers, make_variant
from deepfill_jax.models.layers import GatedConv, convolve
from deepfill_jax.models.variants import UNIT_VARIANCE

SMALL = {v.name: dataclasses.replace(v, width=4, discriminator_width=4) for v in (OFFICIAL, MMAGIC)}


def count(tree) -> int:
    return sum(x.size for x in jax.tree.leaves(tree))


@pytest.mark.parametrize("variant, expected", [(OFFICIAL, 4_052_478), (MMAGIC, 4_414_908)])
def test_parameter_counts_match_both_references(variant, expected):
    arguments = jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    assert count(jax.eval_shape(Generator(variant).init, *arguments)["params"]) == expected
    discriminator = jax.eval_shape(Discriminator(variant).init, *arguments)
    assert count(discriminator["params"]) == 5_946_816


@pytest.mark.parametrize("case", ["k3s2", "k3s2_odd", "k3d16", "k3out", "k3zeros"])
def test_gated_convolution_matches_mmagic(case):
    arrays = {
        k.split("/")[1]: v for k, v in golden("gatedconv").items() if k.startswith(case + "/")
    }
    size, stride, dilation, _ = map(int, arrays["cfg"])
    layer = GatedConv(
        features=arrays["out"].shape[1],
        kernel_size=size,
        stride=stride,
        dilation=dilation,
        padding="SYMMETRIC" if case == "k3zeros" else "REFLECT",
        **({"activation": lambda value: value} if case == "k3out" else {}),
    )
    params = {"kernel": arrays["weight"].transpose(2, 3, 1, 0), "bias": arrays["bias"]}
    result = layer.apply({"params": params}, nhwc(arrays["x"]))
    np.testing.assert_allclose(result, nhwc(arrays["out"]), atol=1e-5)


@pytest.mark.parametrize("padding", ["SAME", "SYMMETRIC", "REFLECT"])
@pytest.mark.parametrize("height, width", [(5, 6), (1, 2)])
def test_convolve_upsampled2x_matches_upsampling_then_convolving(padding, height, width):
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (2, height, width, 3))
    kernel, bias = jax.random.normal(keys[1], (3, 3, 3, 4)), jax.random.normal(keys[2], (4,))
    result = layers.convolve_upsampled2x(x, kernel, bias, padding=padding)
    expected = convolve(image.upsample2x(x), kernel, bias, padding=padding)
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_generator_matches_mmagic():
    arrays = golden("gen_g22_b2_72x72")
    predicted, state = jax.jit(Generator(MMAGIC).apply, static_argnames="mutable")(
        {"params": references.mmagic_model().generator},
        rgb(arrays["masked"]),
        nhwc(arrays["mask"]),
        mutable="intermediates",
    )
    np.testing.assert_allclose(predicted.coarse, rgb(arrays["stage1"]), atol=5e-5)
    np.testing.assert_allclose(predicted.refined, rgb(arrays["stage2"]), atol=1e-3)
    rows, columns = np.divmod(arrays["att_argmax"], 9)
    expected = np.stack([rows - np.arange(9)[:, None], columns - np.arange(9)], axis=-1)
    offsets = state["intermediates"]["refine"]["attention_branch"]["offsets"][0]
    np.testing.assert_array_equal(offsets, expected)


@pytest.mark.parametrize("size", ["64x64", "72x72"])
def test_generator_matches_tf1_release(size):
    arrays = golden(f"tf_gen_g22_b1_{size}")
    mask = nhwc(arrays["mask"])
    predicted = jax.jit(Generator(OFFICIAL).apply)(
        {"params": references.official_model().generator},
        image.mask_out(rgb(arrays["image"]), mask),
        mask,
    )
    np.testing.assert_allclose(predicted.coarse, rgb(arrays["stage1"]), atol=5e-5)
    np.testing.assert_allclose(predicted.refined, rgb(arrays["stage2"]), atol=1e-3)


def spectral_norms(variables):
    for name, params in sorted(variables["params"].items()):
        vectors = variables["spectral"][name]
        matrix = params["kernel"].reshape(-1, params["kernel"].shape[-1])
        yield vectors["v"] @ matrix @ vectors["u"]


def test_discriminator_matches_mmagic():
    arrays = golden("disc_b2_72")
    network = Discriminator(MMAGIC)
    variables = references.mmagic_model(discriminator_gain=1.0).discriminator
    pixels, mask = rgb(arrays["image"]), nhwc(arrays["mask"])
    iterate = jax.jit(partial(network.apply, update_spectral=True, mutable="spectral"))
    for iteration in (1, 2):
        scores, updated = iterate(variables, pixels, mask)
        variables = {"params": variables["params"], "spectral": updated["spectral"]}
        np.testing.assert_allclose(scores, nhwc(arrays[f"out_train_{iteration}"]), atol=1e-5)
        sigma = list(spectral_norms(variables))
        np.testing.assert_allclose(sigma, arrays[f"sigma_{iteration}"], rtol=1e-5)
    scores = jax.jit(network.apply)(variables, pixels, mask)
    np.testing.assert_allclose(scores, nhwc(arrays["out_eval_after2"]), atol=1e-5)


def test_discriminator_matches_tf1_release():
    arrays = golden("tf_disc_b2_64")
    tensors = references.tf_tensors()
    params, spectral = {}, {}
    for n in range(1, 7):
        layer = f"discriminator/sn_patch_gan/conv{n}"
        kernel = tensors[f"{layer}/kernel"]
        params[f"patch{n}"] = {"kernel": kernel, "bias": tensors[f"{layer}/bias"]}
        u = tensors[f"{layer}/kernel_sn/u"].ravel()
        spectral[f"patch{n}"] = {"u": u / np.linalg.norm(u), "v": np.zeros(kernel[..., 0].size)}
    variables = {"params": params, "spectral": spectral}
    network = Discriminator(OFFICIAL)
    iterate = jax.jit(partial(network.apply, update_spectral=True, mutable="spectral"))
    for iteration in (1, 2):
        # Both the TF weights and the golden arrays are for BGR images.
        scores, updated = iterate(variables, nhwc(arrays["image"]), nhwc(arrays["mask"]))
        variables = {"params": params, "spectral": updated["spectral"]}
        np.testing.assert_allclose(scores.reshape(2, -1), arrays[f"out_{iteration}"], atol=1e-5)


def test_power_iteration_converges_to_largest_singular_value():
    network = Discriminator(SMALL["mmagic"])
    pixels, mask = jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    variables = random_variables(network)
    iterate = jax.jit(partial(network.apply, update_spectral=True, mutable="spectral"))
    for _ in range(200):
        variables |= iterate(variables, pixels, mask)[1]
    for sigma, layer in zip(spectral_norms(variables), range(1, 7), strict=True):
        kernel = variables["params"][f"patch{layer}"]["kernel"]
        exact = np.linalg.svd(kernel.reshape(-1, kernel.shape[-1]), compute_uv=False)[0]
        np.testing.assert_allclose(sigma, exact, rtol=1e-2)


def test_gradient_through_power_iteration_differs_from_stopped_gradient():
    pixels, mask = jnp.ones((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    variables = random_variables(Discriminator(SMALL["mmagic"]))

    def gradient(spectral_gradient):
        variant = dataclasses.replace(SMALL["mmagic"], spectral_gradient=spectral_gradient)

        def loss(params):
            scores, _ = Discriminator(variant).apply(
                {**variables, "params": params},
                pixels,
                mask,
                update_spectral=True,
                mutable="spectral",
            )
            return jnp.mean(scores)

        return jax.jit(jax.grad(loss))(variables["params"])["patch2"]["kernel"]

    through, stopped = gradient("through"), gradient("stopped")
    assert np.abs(through - stopped).max() > 1e-2 * np.abs(stopped).max()


@pytest.mark.parametrize("name", SMALL)
def test_result_does_not_depend_on_other_examples_of_the_batch(name):
    network = Generator(SMALL[name])
    rng = np.random.default_rng(0)
    masked = rng.uniform(-1, 1, (2, 64, 64, 3)).astype(np.float32)
    mask = (rng.uniform(size=(2, 64, 64, 1)) < 0.1).astype(np.float32)
    variables = random_variables(network, gain=2.2)  # With gain 1, features would fade to 0.
    apply = jax.jit(network.apply)
    before = apply(variables, masked, mask)
    masked, mask = masked.copy(), mask.copy()  # JAX may still be reading the original arrays.
    masked[1], mask[1] = 0.5, 1.0
    after = apply(variables, masked, mask)
    for a, b in zip(before, after, strict=True):
        np.testing.assert_array_equal(a[0], b[0])
        assert np.abs(a[1] - b[1]).max() > 0.1


@functools.cache
def loss_and_gradient(name, *, remat=False):
    network = Generator(SMALL[name], remat=remat)

    @jax.jit
    @jax.value_and_grad
    def differentiate(variables, pixels, mask):
        predicted = network.apply(variables, image.mask_out(pixels, mask), mask)
        return jnp.mean(jnp.abs(predicted.refined - pixels))

    return differentiate


@pytest.mark.parametrize("hole", ["none", "all"])
@pytest.mark.parametrize("name", SMALL)
def test_loss_and_gradient_are_finite_for_empty_and_full_masks(name, hole):
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    mask = np.full((1, 64, 64, 1), float(hole == "all"), np.float32)
    value, gradients = loss_and_gradient(name)(
        random_variables(Generator(SMALL[name])), pixels, mask
    )
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_remat_does_not_change_gradients():
    pixels = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    inputs = random_variables(Generator(SMALL["mmagic"])), pixels, np.zeros_like(pixels[..., :1])
    _, plain = loss_and_gradient("mmagic")(*inputs)
    _, recomputed = loss_and_gradient("mmagic", remat=True)(*inputs)
    jax.tree.map(partial(np.testing.assert_allclose, atol=1e-7), recomputed, plain)


def test_bfloat16_is_close_to_float32():
    masked = np.random.default_rng(0).uniform(-1, 1, (1, 64, 64, 3)).astype(np.float32)
    mask = np.zeros((1, 64, 64, 1), np.float32)
    variables = random_variables(Generator(SMALL["mmagic"]))
    exact, rough = (
        jax.jit(Generator(SMALL["mmagic"], dtype=dtype).apply)(variables, masked, mask).coarse
        for dtype in (jnp.float32, jnp.bfloat16)
    )
    assert rough.dtype == jnp.float32
    assert 0 < np.abs(exact - rough).max() < 0.05 * np.abs(exact).max()


def test_bias_gradient_in_bfloat16_is_an_exact_sum_over_pixels():
    ones, kernel = jnp.ones((1, 64, 64, 1)), jnp.ones((1, 1, 1, 1))
    total = lambda bias: jnp.sum(convolve(ones, kernel, bias, dtype=jnp.bfloat16))  # noqa: E731
    assert jax.jit(jax.grad(total))(jnp.zeros(1)) == 64 * 64


def test_spectral_norms_are_computed_in_full_precision_on_every_device():
    network = Discriminator(SMALL["mmagic"], jnp.bfloat16)
    pixels, mask = jnp.ones((1, 64, 64, 3)), jnp.zeros((1, 64, 64, 1))
    score = partial(network.apply, update_spectral=True, mutable="spectral")
    jaxpr = jax.make_jaxpr(score)(random_variables(network), pixels, mask)
    products = [e for e in jaxpr.eqns if e.primitive.name == "dot_general"]
    products = [e for e in products if e.outvars[0].aval.ndim < 2]  # Products with a vector.
    assert len(products) == 6 * 4
    for equation in products:
        assert set(equation.params["precision"]) == {lax.Precision.HIGHEST}
        assert equation.outvars[0].aval.dtype == jnp.float32


def test_unit_variance_init_preserves_variance_through_twelve_layers():
    x = jax.random.normal(jax.random.key(0), (1, 24, 24, 64))
    layer = GatedConv(64, padding="REFLECT", kernel_init=UNIT_VARIANCE)
    apply = jax.jit(lambda key, x: layer.init_with_output(key, x)[0])
    for depth in range(12):
        x = apply(jax.random.key(depth), x)
    assert 0.3 < jnp.std(x) < 3.0


def test_generator_refuses_sides_that_are_not_multiples_of_eight():
    with pytest.raises(ValueError, match="multiples of 8, got 60x64"):
        Generator(OFFICIAL).init(
            jax.random.key(0), jnp.zeros((1, 60, 64, 3)), jnp.zeros((1, 60, 64, 1))
        )


def test_make_variant_scales_widths_and_refuses_unknown_names_and_odd_widths():
    assert make_variant("mmagic", width=12).refine_decoder_width == 16
    with pytest.raises(UsageError, match="'nvidia'; choose one of official, mmagic, nip"):
        make_variant("nvidia")
    with pytest.raises(UsageError, match="Width 7"):
        make_variant("official", width=7)
