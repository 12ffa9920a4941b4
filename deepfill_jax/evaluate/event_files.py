"""Reads the scalars of a run from its TensorBoard event files."""

from pathlib import Path

import numpy as np
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.util import tensor_util

from deepfill_jax.evaluate.svg_charts import Curve


def read(workdir: str | Path) -> dict[str, Curve]:
    """Reads all scalars of a run by their tags; empty if there is no folder or no event file.

    A run that resumed from a checkpoint repeated the steps after it; the later values are returned.
    """
    if not Path(workdir).is_dir():
        return {}
    events = EventAccumulator(str(workdir), size_guidance={"tensors": 0}).Reload()
    curves = {}
    for tag in events.Tags()["tensors"]:
        if events.SummaryMetadata(tag).plugin_data.plugin_name != "scalars":
            continue
        points = {
            e.step: float(tensor_util.make_ndarray(e.tensor_proto)) for e in events.Tensors(tag)
        }
        steps = sorted(points)
        curves[tag] = Curve(np.array(steps), np.array([points[step] for step in steps]))
    return curves
