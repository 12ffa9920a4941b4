"""Line charts: positions of points, round ticks, and omission of non-finite values."""

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from deepfill_jax.evaluate import svg_charts
from deepfill_jax.evaluate.svg_charts import Curve


def draw(**curves):
    """Draws curves; returns the points of each line, [N, 2], the texts, and the HTML."""
    curves = {name: Curve(*map(np.array, curve)) for name, curve in curves.items()}
    html = svg_charts.line_chart("L1 < 1 & more", curves)
    figure = ElementTree.fromstring(html.replace("&nbsp;", " "))
    lines = [
        np.array([list(map(float, point.split(","))) for point in line.get("points").split()])
        for line in figure.iter("polyline")
    ]
    return lines, [text.text for text in figure.iter("text")], html


def test_points_are_placed_linearly_between_the_ticks():
    (low, high), texts, html = draw(low=([0, 5, 10], [1, 2, 3]), high=([10], [5]))
    assert texts == ["1", "2", "3", "4", "5", "0", "2", "4", "6", "8", "10"]
    heights = [float(y) for y in re.findall(r'd="M[\d.]+ ([\d.]+)H', html)]
    np.testing.assert_allclose(low[:3, 1], heights[:3])
    np.testing.assert_allclose(high[0], [low[2, 0], heights[4]])
    assert low[1, 0] == pytest.approx((low[0, 0] + low[2, 0]) / 2)
    assert low[0, 1] > low[1, 1]  # SVG's y axis points down.


def test_names_and_title_are_escaped():
    *_, html = draw(**{"a<b": ([1], [1])})
    assert "L1 &lt; 1 &amp; more" in html and "a&lt;b" in html


@pytest.mark.parametrize(
    "values, ticks",
    [
        ([0.2], ["-0.4", "-0.2", "0", "0.2", "0.4", "0.6", "0.8"]),
        ([3, np.nan, 3], ["2.4", "2.6", "2.8", "3", "3.2", "3.4", "3.6"]),
        ([np.nan, np.inf], ["0", "0.2", "0.4", "0.6", "0.8", "1"]),
        ([0.9101, 0.9103], ["0.9101", "0.91015", "0.9102", "0.91025", "0.9103"]),
        ([-400, 1100], ["-500", "0", "500", "1000", "1500"]),
    ],
)
def test_ticks_are_round_numbers_for_any_values(values, ticks):
    (line,), texts, _ = draw(curve=(range(1, len(values) + 1), values))
    assert texts[: len(ticks)] == ticks and texts[len(ticks)] == "0"
    assert np.isfinite(line).all()


def test_curve_of_many_points_is_drawn_as_means():
    steps = np.arange(1, 5001)
    (line,), texts, _ = draw(curve=(steps, np.where(steps % 2, 1.0, 3.0)))
    assert 100 < len(line) <= 401 and (np.diff(line[:, 0]) >= 0).all()
    heights = [float(text) for text in texts[: texts.index("0")]]
    assert 1.8 < heights[0] < 2 < heights[-1] < 2.2
