"""Narrow networks in files as MMagic writes them."""

import references
import torch_files

from deepfill_jax.convert import mmagic, nipponjo, tensorflow1
from deepfill_jax.models import make_variant

META = {"epoch": 1, "iter": 100_000, "mmcv_version": "1.0.5", "time": "Fri Jun 19 11:20:03 2020"}
NARROW = make_variant("mmagic", width=2, discriminator_width=2)
TABLES = {
    "mmagic": mmagic.make_table(discriminator=True),
    "tf": tensorflow1.make_table(discriminator=True),
    "nipponjo": nipponjo.make_table(nipponjo.LAYERS, discriminator=True),
    "nipponjo_tf": nipponjo.make_table(nipponjo.TF_LAYERS, discriminator=True),
}


def state_dict():
    return references.mmagic_tensors(discriminator_gain=references.GENERATOR_GAIN)


def save(path, tensors, *, meta=META, format="zip", **more):
    """Writes tensors as MMagic does, in torch's zip format or in the older format."""
    return torch_files.save(path, {"meta": meta, "state_dict": tensors, **more}, format=format)


def narrow():
    return references.narrow_tensors("mmagic", TABLES["mmagic"], NARROW)
