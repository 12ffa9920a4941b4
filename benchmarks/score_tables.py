"""Tables of what quality.py scored, in Markdown."""

import distances

from deepfill_jax.evaluate import metrics

METRICS = metrics.METRICS | distances.METRICS
BY_AREA = ("l1_hole", "lpips_vgg16")

HEAD = """# Scores

`python benchmarks/quality.py --tables docs/scores.md` wrote this page.

Held-out pictures, cropped to {crops}, at {size} px. Crops and holes are
frozen, so every method of a table completed the same ones. [Models](../README.md#models) and
[classical fills](../deepfill_jax/evaluate/baselines.py); "mean" is the mean colour of what is
known.

Means over pictures, ± their standard error. Hole L1 and hole PSNR count the hole alone, the others
the whole picture. Lower is better of L1, LPIPS and Fréchet. LPIPS is version 0.1, once with AlexNet
and once with VGG16: models that were trained with AlexNet's LPIPS are to be judged by VGG16's.
AlexNet-Fréchet is FID's formula on that network's last convolution, 256 channels averaged over
the picture. It is a figure of the whole set, which depends on the number of pictures and has no
standard error, and it is no FID. The best of the methods with the most pictures is bold. Below
each table are hole L1 and LPIPS by how much of the picture is hole, in percent, and in how many
pictures.
"""


def section(pictures, masks, results):
    """Yields the lines of one set and kind of masks.

    Args:
        pictures: The set's name.
        masks: The kind's name.
        results: By method, what quality.py keeps.
    """
    results = dict(sorted(results.items(), key=lambda item: item[1]["summary"]["l1_hole"]["mean"]))
    yield f"## {pictures}, {masks} masks\n"
    yield from _commands(pictures, masks, results)
    yield from _table("", results, _columns(results))
    for name in BY_AREA:
        yield from _table(METRICS[name].title, results, _area_columns(results, name))


def _commands(pictures, masks, results):
    """What scores them again, a command for each number of pictures."""
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
    """The cells of each column by method, under its title: pictures, and every metric."""
    summaries = {method: result["summary"] for method, result in results.items()}
    counts = {method: str(summary["hole_area"]["count"]) for method, summary in summaries.items()}
    return {"pictures": counts} | {
        metric.title: _cells(metric, {m: s[name] for m, s in summaries.items() if name in s})
        for name, metric in METRICS.items()
    }


def _area_columns(results, name):
    """The same of one metric, by the hole's area, with the number of pictures in the titles."""
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
    """Figures as text, with their standard errors, the best of the largest count in bold."""
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
    """A row for each method; "–" where a column has nothing of it."""
    yield _row(corner, *columns)
    yield "|---" * (1 + len(columns)) + "|"
    for method in methods:
        yield _row(method, *(cells.get(method, "–") for cells in columns.values()))
    yield ""


def _row(*cells):
    return f"| {' | '.join(cells)} |"
