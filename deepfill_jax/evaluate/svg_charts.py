"""Line charts of scalars over training steps, as SVG in the colours and font of the report."""

import math
from collections.abc import Mapping
from html import escape
from typing import NamedTuple

import numpy as np

_WIDTH, _HEIGHT = 480, 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 454, 10, 192  # Limits of the plotting area.
_COLOURS = ("#3b82f6", "#e4662b", "#2f9e6e")  # They are visible on white and on black.
_POINTS = 400  # Maximum number of points of a curve; longer curves are averaged.


class Curve(NamedTuple):
    """A scalar over the steps of a training run."""

    steps: np.ndarray  # [N], ascending.
    values: np.ndarray  # [N]; non-finite values are not drawn.


def line_chart(title: str, curves: Mapping[str, Curve]) -> str:
    """Draws up to three curves, by their names in the legend, as an SVG in an HTML figure.

    A curve with more than 400 points is drawn as 400 means over consecutive points.
    """
    curves = {name: _thinned(curve) for name, curve in curves.items()}
    steps, values = (np.concatenate(parts) for parts in zip(*curves.values(), strict=True))
    x_ticks, y_ticks = _ticks(0.0, steps.max(initial=1)), _ticks(*_limits(values))

    def x(step: float) -> float:
        return _LEFT + (_RIGHT - _LEFT) * step / x_ticks[-1]

    def y(value: float) -> float:
        return _BOTTOM - (_BOTTOM - _TOP) * (value - y_ticks[0]) / (y_ticks[-1] - y_ticks[0])

    marks, legend = [], []
    for tick in y_ticks:
        marks.append(f'<path class="rule" d="M{_LEFT} {y(tick):.1f}H{_RIGHT}"/>')
        marks.append(
            f'<text x="{_LEFT - 6}" y="{y(tick) + 4:.1f}" text-anchor="end">{tick:g}</text>'
        )
    for tick in x_ticks:
        marks.append(
            f'<text x="{x(tick):.1f}" y="{_BOTTOM + 20}" text-anchor="middle">{tick:,g}</text>'
        )
    for colour, (name, curve) in zip(_COLOURS, curves.items(), strict=False):
        points = [f"{x(step):.1f},{y(value):.1f}" for step, value in zip(*curve, strict=True)]
        # The last point is repeated, because a line of a single point would be invisible.
        marks.append(f'<polyline stroke="{colour}" points="{" ".join(points + points[-1:])}"/>')
        legend.append(f'<span style="color:{colour}">&#9632;</span>&nbsp;{escape(name)}')
    return (
        f'<figure class="chart"><figcaption><strong>{escape(title)}</strong> {" ".join(legend)}'
        f'</figcaption><svg viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img" '
        f'aria-label="{escape(title)}">{"".join(marks)}</svg></figure>'
    )


def _thinned(curve: Curve) -> Curve:
    finite = np.isfinite(curve.values)
    steps, values = (np.asarray(x, np.float64)[finite] for x in curve)
    parts = min(len(steps), _POINTS)
    means = [
        [part.mean() for part in np.array_split(x, parts)] if parts else [] for x in (steps, values)
    ]
    return Curve(*map(np.asarray, means))


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Returns the range of the values, widened if it is empty."""
    low, high = (values.min(), values.max()) if len(values) else (0.0, 1.0)
    return (low, high) if high > low else (low - 0.5, high + 0.5)


def _ticks(low: float, high: float) -> np.ndarray:
    """Returns two to seven evenly spaced round numbers whose range contains `low` and `high`."""
    power = 10.0 ** math.floor(math.log10(high - low))
    space = next(
        space
        for space in (factor * power for factor in (0.1, 0.2, 0.5, 1, 2, 5))
        if math.ceil(high / space) - math.floor(low / space) <= 6
    )
    return space * np.arange(math.floor(low / space), math.ceil(high / space) + 1)
