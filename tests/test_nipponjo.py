"""nipponjo's two networks: reading of their files, and outputs on seeded weights."""

from functools import partial

import jax
import numpy as np
import pytest
import references
from references import golden, nhwc

from deepfill_jax import image, weights
from deepfill_jax.convert import layout, nipponjo, releases, sources, tensorflow1
from deepfill_jax.convert.crc32c import crc32c, masked
from deepfill_jax.errors import UsageError
from deepfill_jax.models import NIPPONJO, NIPPONJO_TF, Discriminator, Generator, make_variant
from deepfill_jax.tensors import PARAMS, flatten, subtree

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch
VARIANTS = {variant.name: variant for variant in (NIPPONJO, NIPPONJO_TF)}


def split(tensors):
    """Converts {"G.a": x, "D.b": y} to torch tensors {"G": {"a": x}, "D": {"b": y}}."""
    parts = {"G": {}, "D": {}}
    for name, x in tensors.items():
        parts[name[0]][name[2:]] = torch.from_numpy(np.array(x))
    return parts


def write(path, content):
    torch.save(content, path)
    return path


@pytest.fixture(scope="module", params=VARIANTS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def converted(name, tmp_path_factory):
    path = tmp_path_factory.mktemp(name) / "states.pth"
    content = split(references.nipponjo_tensors(name))
    return sources.read(write(path, content | {"n_iter": 7}))


def test_generator_matches_nipponjo(name, converted):
    arrays = golden("nipponjo_g22_b1_72x72")
    assert converted.model.variant == VARIANTS[name]
    mask = nhwc(arrays["mask"])
    masked = image.mask_out(nhwc(arrays["image"]), mask)
    apply = jax.jit(Generator(VARIANTS[name]).apply)
    predicted = apply({"params": converted.model.generator}, masked, mask)
    np.testing.assert_allclose(predicted.coarse, nhwc(arrays[f"{name}/stage1"]), atol=5e-5)
    np.testing.assert_allclose(predicted.refined, nhwc(arrays[f"{name}/stage2"]), atol=1e-3)


def test_discriminator_matches_nipponjo(name, converted):
    arrays = golden("nipponjo_g22_b1_72x72")
    variables = converted.model.discriminator
    network = Discriminator(VARIANTS[name])
    score = jax.jit(partial(network.apply, update_spectral=True, mutable="spectral"))
    for iteration in (1, 2):
        scores, updated = score(variables, nhwc(arrays["image"]), nhwc(arrays["mask"]))
        variables = {**variables, **updated}
        # nipponjo flattens scores [C, H, W].
        theirs = arrays[f"{name}/scores{iteration}"].reshape(256, *scores.shape[1:3])
        np.testing.assert_allclose(scores[0], theirs.transpose(1, 2, 0), atol=1e-5)


def narrow(name):
    variant = make_variant(name, width=2, discriminator_width=2)
    layers = nipponjo.LAYERS if name == "nipponjo" else nipponjo.TF_LAYERS
    table = nipponjo.make_table(layers, discriminator=True)
    return variant, table, references.narrow_tensors(name, table, variant)


def test_adam_moments_of_a_training_checkpoint_are_converted(name, tmp_path):
    variant, table, tensors = narrow(name)
    content = split(tensors)
    for part, steps in {"G": 2, "D": 3}.items():
        trained = {n: x for n, x in tensors.items() if n[0] == part and not n.endswith("weight_u")}
        content[f"{part}_optim"] = references.stepped_adam(trained, steps=steps)
    model = sources.read(write(tmp_path / "states.pth", content | {"n_iter": 3})).model
    assert model.variant == variant
    metadata = {"converted_from": "nipponjo/deepfillv2-pytorch", "step": 3}
    assert model.metadata.items() >= metadata.items()
    ours = flatten(weights.networks(model))
    for ours_name, origin in table.items():
        np.testing.assert_array_equal(ours[ours_name], origin.layout.to_ours(tensors[origin.name]))
    for net, steps in {"generator": 2, "discriminator": 3}.items():
        moments = model.moments[net]
        assert moments["count"] == steps
        mu, nu = flatten(moments["mu"]), flatten(moments["nu"])
        rows = subtree(table, PARAMS[net])
        assert mu.keys() == nu.keys() == rows.keys()
        for row, origin in rows.items():
            x = references.gradient(origin.name, np.shape(tensors[origin.name]))
            x = origin.layout.to_ours(x)
            np.testing.assert_allclose(mu[row], (1 - 0.9**steps) * x, rtol=1e-5)
            np.testing.assert_allclose(nu[row], (1 - 0.999**steps) * x**2, rtol=1e-3)


def test_moments_of_other_optimizers_are_ignored(name, tmp_path):
    _, _, tensors = narrow(name)
    content = split(tensors)
    parameters = [torch.nn.Parameter(x) for x in content["G"].values()]
    content["G_optim"] = torch.optim.SGD(parameters, 0.1).state_dict()
    content["D_optim"] = "none"
    assert not sources.read(write(tmp_path / "states.pth", content)).model.moments


@pytest.mark.parametrize("rgb", [False, True])
def test_tf1_release_weights_are_recognised_for_bgr_and_for_rgb(tmp_path, monkeypatch, rgb):
    """The converted model is for RGB images, whether the file's weights are for BGR or RGB."""
    variables = {k: x for k, x in references.tf_tensors().items() if k.startswith("inpaint_net/")}
    checksums = {k: masked(crc32c(x.tobytes())) for k, x in variables.items()}
    release = releases.Tf1Release(releases.digest(checksums), releases.digest({"other": 1}))
    monkeypatch.setitem(releases.TF1, "seeded", release)
    official = tensorflow1.from_variables(variables, source="seeded").model

    ours = flatten({"generator": official.generator})
    ours = ours if rgb else layout.flip_bgr(ours)
    table = nipponjo.make_table(nipponjo.TF_LAYERS, discriminator=False)
    tensors = {o.name: o.layout.to_theirs(ours[n]) for n, o in table.items()}
    path = write(tmp_path / "states_tf.pth", {"G": split(tensors)["G"]})
    model = sources.read(path).model
    assert model.variant == NIPPONJO_TF and model.discriminator is None
    assert model.metadata["release"] == "seeded" and "NC" in model.metadata["license"]
    jax.tree.map(np.testing.assert_array_equal, model.generator, official.generator)


def test_another_network_with_key_g_is_refused(tmp_path):
    path = write(tmp_path / "gan.pth", {"G": {"fc.weight": torch.zeros(3)}})
    with pytest.raises(UsageError, match="none of the 84 expected tensors is among its 1, such as"):
        sources.read(path)


def test_missing_layers_are_listed_by_nipponjos_names(name, tmp_path):
    _, _, tensors = narrow(name)
    missing = next(key for key in tensors if "to_rgb" in key or "conv17" in key)
    del tensors[missing]
    with pytest.raises(UsageError, match=f"states.pth holds .* missing: {missing}"):
        sources.read(write(tmp_path / "states.pth", split(tensors)))
