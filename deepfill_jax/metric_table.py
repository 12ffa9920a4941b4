"""Table of the metrics of completed images by name: label, unit, and direction.

Their formulas are in `evaluate/metrics.py` and `perceptual.py`.
"""

from collections.abc import Callable, Iterable
from typing import NamedTuple


class Metric(NamedTuple):
    """Label and unit of a metric, and whether low or high values are better."""

    label: str
    unit: str
    best: Callable[[Iterable[float]], float]  # `min` or `max`.

    @property
    def title(self) -> str:
        """Label and unit, separated by a comma."""
        return f"{self.label}, {self.unit}" if self.unit else self.label


# The metrics of `evaluate.metrics.measure`; the hole's area is not a measure of quality.
METRICS = {
    "l1_hole": Metric("Hole L1", "%", min),
    "psnr": Metric("PSNR", "dB", max),
    "ssim": Metric("SSIM", "", max),
    "psnr_hole": Metric("Hole PSNR", "dB", max),
}
# LPIPS is measured only on request, by one network of `perceptual.NETWORKS`. Values of different
# networks are not comparable.
LPIPS = {
    "lpips": Metric("LPIPS, AlexNet", "", min),
    "lpips_vgg16": Metric("LPIPS, VGG16", "", min),
}
