"""Conditions of an evaluation as text for its report: network, data, masks, seed, devices."""

from collections.abc import Mapping

import jax
from ml_collections import ConfigDict

from deepfill_jax import weights


def conditions(config: ConfigDict, model: weights.Model | None) -> dict[str, str]:
    """Describes the conditions on which the scores of an evaluation depend.

    Args:
        config: The config of the evaluation.
        model: The evaluated model; None omits network, license and weights.

    Returns:
        The description of each condition by its name.
    """
    words = {}
    if model is not None:
        metadata = {key: x for key, x in model.metadata.items() if not isinstance(x, Mapping)}
        words["Network"] = f"{model.variant.name}, width {model.variant.width}"
        words["License"] = metadata.pop("license", None) or "not stated"
        words["Weights"] = ", ".join(f"{key} {x}" for key, x in metadata.items()) or "nothing known"
        if config.eval.seamless:
            words["Colors"] = "matched at the border of the hole"
    devices = jax.devices()[0].device_kind
    crop = f"crops of {config.data.crop_size} px" if config.data.crop_size else "whole pictures"
    return words | {
        "Data": f"{config.data.val_source}, {crop} at {config.image_size} px",
        "Masks": holes(config),
        "Seed": f"{config.eval.seed}, of crops and masks",
        "Computed by": f"jax {jax.__version__} on {jax.device_count()} {devices}",
    }


def holes(config: ConfigDict) -> str:
    """Describes the kinds of holes: "irregular, 15 to 65 % of the image", with shares if several.

    docs/scores.md shows how much scores depend on them.
    """
    masks, details = config.masks, {}
    details["irregular"] = f", {masks.min_area:.0%} to {masks.max_area:.0%} of the image"
    details["folder"] = f", files of {masks.folder}"
    kinds = {kind: weight for kind, weight in masks.weights.items() if weight}
    total = sum(kinds.values())
    return " and ".join(
        f"{weight / total:.0%} " * (len(kinds) > 1) + kind + details.get(kind, "")
        for kind, weight in kinds.items()
    )
