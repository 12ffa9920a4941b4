"""HTML report of an evaluation, made from the folders that `evaluate` writes.

It shows scores, images and training curves. The page is one self-contained HTML file with embedded
images, for screens and phones.
"""

import base64
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import scoring, visualization
from deepfill_jax.evaluate.svg_charts import Curve, line_chart
from deepfill_jax.image import composite
from deepfill_jax.inpaint import classical
from deepfill_jax.metric_table import METRICS
from deepfill_jax.pictures import rgb

EXAMPLES = 4  # Number of images in each group: best, median and worst.
LONGEST_SIDE = 256  # Maximum side of an image on the page, in pixels; larger ones are scaled down.
_QUALITY = 90  # Quality of lossy WebP, 0..100.
_PIXELATED = 128  # Images up to this side, in pixels, are enlarged without interpolation.

# Titles of the charts, and the tags of the training scalars in each by their names in the legend.
_CHARTS = {
    "Hole L1 of validation, %": {"hole L1": "eval/l1_hole"},
    "PSNR of validation, dB": {"image": "eval/psnr", "hole": "eval/psnr_hole"},
    "LPIPS of validation": {"AlexNet": "eval/lpips", "VGG16": "eval/lpips_vgg16"},
    "L1 of training, hole, in [-1, 1] units": {
        "first stage": "train/l1/coarse/hole",
        "second stage": "train/l1/refined/hole",
    },
    "Hinges of the discriminator": {"real": "train/hinge/real", "fake": "train/hinge/fake"},
}


def render(
    folders: Mapping[str, Path],
    *,
    conditions: Mapping[str, str],
    config: str,
    command: str,
    curves: Mapping[str, Curve],
) -> str:
    """Renders the page.

    Args:
        folders: The output folder of `evaluate` for each method, by the method's name. The images
            of the first method are shown in full, those of the others next to them.
        conditions: Descriptions of the conditions on which the scores depend, by name.
        config: All values of the config, as text.
        command: The command line that renders the page again.
        curves: Scalars of the training, by their tags in TensorBoard; tags that no chart contains
            are ignored.

    Returns:
        The HTML document.

    Raises:
        UsageError: The evaluations are of different images or holes.
    """
    reports = {name: _read_report(folder) for name, folder in folders.items()}
    name, *others = folders
    _check_same_holes(reports)
    title = f"Evaluation of {name}"
    count = len(reports[name]["pictures"]["index"])
    facts = {"Images": f"{count:,}", **conditions}
    listed = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in facts.items())
    parts = [
        f"<h1>{escape(title)}</h1><dl>{listed}</dl>",
        f"<pre>{escape(command)}</pre>",
        f"<details><summary>All values of the config</summary><pre>{escape(config)}</pre>",
        "</details>",
        f"<h2>Scores</h2>{_table(reports)}",
        f"<h2>Images</h2>{_legends()}",
        *_examples(folders, reports[name]["pictures"]),
        *_charts(curves),
    ]
    page, style = (Path(__file__).with_suffix(suffix) for suffix in (".html", ".css"))
    return Template(page.read_text(encoding="utf-8")).substitute(
        title=escape(title), style=style.read_text(encoding="utf-8"), body="\n".join(parts)
    )


def _read_report(folder: Path) -> dict[str, Any]:
    return json.loads((folder / scoring.REPORT).read_text())


def _check_same_holes(reports: Mapping[str, Mapping[str, Any]]) -> None:
    first, *others = reports
    for other in others:
        mine, theirs = (reports[name]["pictures"] for name in (first, other))
        if any(mine[key] != theirs[key] for key in ("index", "hole_area")):
            raise UsageError(
                f"The evaluations of {first} and {other} are of different images or holes; "
                "evaluate both with the same config."
            )


def _table(reports: Mapping[str, Mapping[str, Any]]) -> str:
    """Renders the scores: per metric a row for all images and one per bucket, a column per method.

    Buckets are ranges of the hole's area.
    """
    first, *_ = reports.values()
    # Long names may break into lines after underscores.
    names = "".join(f"<th>{escape(name).replace('_', '_<wbr>')}</th>" for name in reports)
    rows = [f"<thead><tr><th>Hole</th><th>Count</th>{names}</tr></thead>"]
    for key, metric in METRICS.items():
        direction = "lower" if metric.best is min else "higher"
        rows.append(
            f'<tbody><tr class="metric"><th colspan="{2 + len(reports)}">{metric.title} '
            f"<small>{direction} is better</small></th></tr>"
        )
        summaries = [report["summary"][key] for report in reports.values()]
        means = [summary["mean"] for summary in summaries]
        rows.append(_row("all", len(first["pictures"]["index"]), means, metric.best))
        errors = (f"<td>{_number(summary['standard_error'])}</td>" for summary in summaries)
        rows.append(f'<tr class="soft"><th>±</th><td></td>{"".join(errors)}</tr>')
        for index, bucket in enumerate(first["by_area"]):
            means = [report["by_area"][index][key] for report in reports.values()]
            area = f"{bucket['area'].replace('-', '–')} %"
            rows.append(_row(area, bucket["count"], means, metric.best))
        rows.append("</tbody>")
    return (
        f'<div class="scroll"><table>{"".join(rows)}</table></div>'
        "<p>Means over images, ± the standard error of the mean, and means by the share of the "
        "image that the hole covers. Hole L1 and hole PSNR are measured inside the hole only, PSNR "
        "and SSIM over the whole image. The best value of each row is marked.</p>"
    )


def _row(label: str, count: int, means: Sequence[float | None], best: Callable) -> str:
    winner = best((mean for mean in means if mean is not None), default=np.nan)
    cells = "".join(
        f"<td{' class=best' if mean == winner else ''}>{_number(mean)}</td>" for mean in means
    )
    return f"<tr><th>{label}</th><td>{count}</td>{cells}</tr>"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _legends() -> str:
    side = f"{100 * visualization.FULL_DISTANCE:.0f} %"
    full = f"{100 * visualization.FULL_ERROR / 255:.0f} %"
    wheel = _image(visualization.offset_wheel(128), "Colours of offsets", lossless=True)
    scale = _image(visualization.error_scale(128, 24), "Colours of errors", lossless=True)
    return (
        f'<div class="legends"><figure class="wheel">{wheel}<figcaption>Attention: the offset from '
        "each position in the hole to the position with the largest weight. The wheel shows the "
        f"colours of offsets from its centre; its rim stands for {side} of the image's side or "
        "more."
        "</figcaption></figure>"
        f"<figure>{scale}<figcaption>Error: absolute difference, mean over the channels, from 0 to "
        f"{full} of the range or more.</figcaption></figure></div>"
    )


def _examples(folders: Mapping[str, Path], pictures: Mapping[str, list]) -> Iterator[str]:
    for title, positions in _extremes(pictures["l1_hole"]).items():
        if len(positions):
            yield f"<h3>{title} by hole L1</h3>"
        yield from (_example(folders, pictures, position) for position in positions)


def _extremes(errors: Sequence[float | None]) -> dict[str, np.ndarray]:
    """Returns the positions of the best, median and worst images; no position occurs twice."""
    order = np.argsort([np.inf if error is None else error for error in errors], kind="stable")
    count = min(EXAMPLES, max(1, len(order) // 3))
    best, others = order[:count], order[count:]
    middle, worst = others[:-count], others[-count:]
    skipped = max(0, len(middle) - count + 1) // 2
    return {"Best": best, "Median": middle[skipped:][:count], "Worst": worst[::-1]}


def _example(folders: Mapping[str, Path], pictures: Mapping[str, list], position: int) -> str:
    scores = [f"<strong>Image {pictures['index'][position]}</strong>"]
    scores.append(f"hole {100 * pictures['hole_area'][position]:.0f} %")
    for key, metric in METRICS.items():
        scores.append(f"{metric.label} {_number(pictures[key][position])} {metric.unit}".rstrip())
    spans = "".join(f"<span>{score}</span>" for score in scores)
    figures, side = _figures(folders, f"{pictures['index'][position]:06d}.png")
    kind = "row pixelated" if side <= _PIXELATED else "row"
    return (
        f'<article><div class="scores">{spans}</div><div class="{kind}">{figures}</div></article>'
    )


def _figures(folders: Mapping[str, Path], file: str) -> tuple[str, int]:
    """Renders all images of one example in a row; returns the HTML and the longer side in pixels.

    The row omits the coarse result and the attention if the method has none.
    """
    name, *others = folders
    own = folders[name]
    image, completed = rgb.read(own / "image" / file), rgb.read(own / "completed" / file)
    mask = rgb.read(own / "mask" / file)[..., :1] > 0
    masked = composite(classical.MID_GREY, image, mask)
    figures = [_figure(masked, "masked")]
    if (own / "coarse" / file).exists():
        figures.append(_figure(rgb.read(own / "coarse" / file), "first stage"))
    figures.append(_figure(completed, name))
    figures.append(_figure(visualization.error_map(completed, image), "error", lossless=True))
    if (own / "attention" / file).exists():
        figures.append(_figure(rgb.read(own / "attention" / file), "attention", lossless=True))
    for other in others:
        figures.append(_figure(rgb.read(folders[other] / "completed" / file), other))
    figures.append(_figure(image, "truth"))
    return "".join(figures), max(image.shape)


def _figure(array: np.ndarray, caption: str, *, lossless: bool = False) -> str:
    picture = _image(array, caption, lossless=lossless)
    return f"<figure>{picture}<figcaption>{escape(caption)}</figcaption></figure>"


def _charts(curves: Mapping[str, Curve]) -> Iterator[str]:
    charts = []
    for title, tags in _CHARTS.items():
        found = {name: curves[tag] for name, tag in tags.items() if tag in curves}
        if found:
            charts.append(line_chart(title, found))
    if charts:
        yield f'<h2>Training</h2><p>By step.</p><div class="charts">{"".join(charts)}</div>'


def _image(array: np.ndarray, text: str, *, lossless: bool) -> str:
    """Embeds an image, uint8 [H, W, 3], into the page as WebP."""
    picture = Image.fromarray(array)
    picture.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    encoded = io.BytesIO()
    picture.save(encoded, "WEBP", lossless=lossless, quality=_QUALITY)
    data = base64.b64encode(encoded.getvalue()).decode("ascii")
    width, height = picture.size
    return (
        f'<img width="{width}" height="{height}" alt="{escape(text)}" '
        f'src="data:image/webp;base64,{data}">'
    )
