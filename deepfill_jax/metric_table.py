"""The metrics of completed pictures by name: how each is shown, and which values are better.

Their formulas are in `evaluate/metrics.py` and `perceptual.py`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Metric(NamedTuple):
    """How a metric is shown, and what is better."""

    label: str
    unit: str
    best: Callable[[Iterable[float]], float]  # min or max.

    @property
    def title(self) -> str:
        """Label and unit."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


# Those of `evaluate.metrics.measure` but for the hole's area, which is no merit.
METRICS = {
    "l1_hole": Metric("Hole L1", "%", min),
    "psnr": Metric("PSNR", "dB", max),
    "ssim": Metric("SSIM", "", max),
    "psnr_hole": Metric("Hole PSNR", "dB", max),
}
# Measured on request only, by either network of `perceptual.NETWORKS`; the two do not compare.
LPIPS = {
    "lpips": Metric("LPIPS, AlexNet", "", min),
    "lpips_vgg16": Metric("LPIPS, VGG16", "", min),
}
