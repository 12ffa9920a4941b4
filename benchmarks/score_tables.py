"""Markdown tables of the results of quality.py."""

import distances

from deepfill_jax import metric_table

METRICS = metric_table.METRICS | distances.METRICS
BY_AREA = ("l1_hole", "lpips_vgg16")

HEADER = """# Scores

`python benchmarks/quality.py --tables docs/scores.md` generates this page.

The images are held-out photographs, cropped to {crops} and resized to {size} px.
Crops and masks are fixed, so all methods of a table complete the same images.
The methods are [models](../README.md#pretrained-models) and [classical baselines](../deepfill_jax/inpaint/classical.py); "mean" fills the hole with the mean colour of the known pixels.

The completions of models are those of `deepfill inpaint` with its default options, with the colors and the detail of the known pixels.

Figures are means over images ± their standard error.
Hole L1 and hole PSNR are computed over the hole, the other metrics over the whole image.
Lower is better for L1, LPIPS and Fréchet.
LPIPS is version 0.1, once with AlexNet and once with VGG16; models trained with AlexNet's LPIPS should be compared by VGG16's.
AlexNet-Fréchet is the formula of FID on the last convolution of AlexNet, 256 channels averaged over the image.
It is one figure for the whole set, which depends on the number of images and has no standard error, and it is not an FID.
Among the methods with the most images, the best figure is bold.
Below each table are hole L1 and LPIPS by the area of the hole in percent of the image, with the number of images.
"""  # noqa: E501


def section(pictures, masks, results):
    """Yields the lines of one data set and kind of masks.

    Args:
        pictures: The name of the data set.
        masks: The name of the kind of masks.
        results: The results that quality.py stores, by method.
    """
    results = dict(sorted(results.items(), key=lambda item: item[1]["summary"]["l1_hole"]["mean"]))
    yield f"## {pictures}, {masks} masks\n"
    yield from _commands(pictures, masks, results)
    yield from _table("", results, _columns(results))
    for name in BY_AREA:
        if columns := _area_columns(results, name):
            yield from _table(METRICS[name].title, results, columns)


def _commands(pictures, masks, results):
    """Yields the commands that reproduce the results, one for each number of images."""
    numbers = {method: result["conditions"]["asked"] for method, result in results.items()}
    for number in sorted(set(numbers.values())):
        methods = ",".join(sorted(m for m in numbers if numbers[m] == number))
        limit = f" --number {number}" if number else ""
        yield (
            "    python benchmarks/quality.py --photos FOLDER "
            f"--sets {pictures} --masks {masks} --methods {methods}{limit}"
        )
    yield ""


def _columns(results):
    """Returns the cells by column title and method: the number of images, and every metric."""
    summaries = {method: result["summary"] for method, result in results.items()}
    counts = {method: str(summary["hole_area"]["count"]) for method, summary in summaries.items()}
    return {"pictures": counts} | {
        metric.title: _cells(metric, {m: s[name] for m, s in summaries.items() if name in s})
        for name, metric in METRICS.items()
    }


def _area_columns(results, name):
    """Returns the cells of one metric by area of the hole, with the image count in the titles."""
    by_area = {}
    for method, result in results.items():
        for row in result["by_area"]:
            if name in row:
                figure = {"mean": row[name], "count": row["count"]}
                by_area.setdefault(row["area"], {})[method] = figure
    return {
        f"{area} ({max(figure['count'] for figure in figures.values())})": _cells(
            METRICS[name], figures
        )
        for area, figures in sorted(by_area.items())
    }


def _cells(metric, figures):
    """Formats figures with standard errors; the best one with the largest count is bold."""
    most = max((figure["count"] for figure in figures.values()), default=0)
    rivals = [figure["mean"] for figure in figures.values() if figure["count"] == most]
    digits = 2 if metric.unit else 3
    cells = {}
    for method, figure in figures.items():
        text = f"{figure['mean']:.{digits}f}"
        if figure["count"] == most and figure["mean"] == metric.best(rivals):
            text = f"**{text}**"
        if "standard_error" in figure:
            text += f" ± {figure['standard_error']:.{digits}f}"
        cells[method] = text
    return cells


def _table(corner, methods, columns):
    """Yields a table with a row per method; "–" marks missing figures."""
    yield _row(corner, *columns)
    yield "|---" * (1 + len(columns)) + "|"
    for method in methods:
        yield _row(method, *(cells.get(method, "–") for cells in columns.values()))
    yield ""


def _row(*cells):
    return f"| {' | '.join(cells)} |"
