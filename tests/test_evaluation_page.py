"""HTML report: well-formed, self-contained, with the scores and images of the given folders."""

import base64
import html
import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import html_report, scoring, visualization
from deepfill_jax.evaluate.methods import baseline_complete
from deepfill_jax.evaluate.svg_charts import Curve

SIDE, COUNT = 24, 9
NAME = "a <b> & 'c'"
VOID = {"meta", "img", "wbr", "path", "polyline"}


class Page(HTMLParser):
    """Parses a page; `images` are (group, index, caption, array). Tags that do not match fail."""

    def __init__(self, text):
        super().__init__()
        self.open, self.rows, self.images, self.texts = [], [], [], {}
        self.group = self.index = None
        self.feed(text)
        self.close()
        assert not self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        assert not {"href", "onload", "onerror"} & attributes.keys() and tag != "script"
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append(("", attributes.get("class")))
        if tag == "img":
            kind, _, data = attributes["src"].partition(",")
            assert kind == "data:image/webp;base64"
            array = np.asarray(Image.open(io.BytesIO(base64.b64decode(data, validate=True))))
            assert array.shape == (int(attributes["height"]), int(attributes["width"]), 3)
            self.images.append((self.group, self.index, attributes["alt"], array))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if not self.open:
            return
        if {"td", "th"} & set(self.open):
            text, kind = self.rows[-1][-1]
            self.rows[-1][-1] = (text + data, kind)
        self.texts[self.open[-1]] = self.texts.get(self.open[-1], "") + data
        if self.open[-1] == "h3":
            self.group = data.split()[0]
        if self.open[-1] == "strong" and data.startswith("Image "):
            self.index = int(data.split()[1])

    def images_of(self, index):
        """Returns the images of one example by their captions."""
        return {caption: array for _, i, caption, array in self.images if i == index}


def make_batch(count=COUNT):
    """Makes smooth images; example i has the index 30 - i."""
    y, x = np.mgrid[:SIDE, :SIDE] / SIDE
    colours = np.random.default_rng(0).uniform(80, 200, (count, 1, 1, 3))
    mask = np.zeros((count, SIDE, SIDE, 1), np.uint8)
    for i in range(count):
        mask[i, 4 : 12 + i, 3:15] = 1
    return {
        "image": (colours * np.stack([x, y, 1 - x], axis=-1)).astype(np.uint8),
        "mask": mask,
        "valid": np.ones(count, bool),
        "index": 30 - np.arange(count),
    }


def complete(batch):
    """Fills the hole of example i with the ground truth plus 5 * i."""
    error = 5 * (30 - batch["index"])[:, None, None, None]
    return {
        "completed": batch["image"] + error * batch["mask"],
        "coarse": np.full(batch["image"].shape, 77),
        "offsets": np.ones((len(error), 3, 3, 2), int),
    }


def render(folders, **changes):
    options = {"conditions": {}, "config": "", "command": "", "curves": {}}
    return html_report.render(folders, **options | changes)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    folders = {name: tmp_path_factory.mktemp("page") for name in ("network", "telea", "mean")}
    scoring.score(complete, [make_batch()], output=folders["network"])
    for name in ("telea", "mean"):
        fill = baseline_complete(name)
        scoring.score(fill, [make_batch()], output=folders[name])
    return {NAME if name == "network" else name: path for name, path in folders.items()}


@pytest.fixture(scope="module")
def text(folders):
    steps = np.arange(1, 4)
    return render(
        folders,
        conditions={"Masks": "<script>alert(1)</script>"},
        config='{"a": "</pre>"}',
        command="main --a='x && y'",
        curves={"eval/psnr": Curve(steps, 2.0 * steps), "else/loss": Curve(steps, 0.5 * steps)},
    )


def test_page_is_self_contained_and_shows_conditions_config_and_command(text):
    page = Page(text)
    assert not re.search(r"https?:|//|url\(|@import", re.sub(r'base64,[^"]*', "", text))
    assert html.unescape(page.texts["title"]) == f"Evaluation of {NAME}"
    assert page.texts["dd"] == f"{COUNT}<script>alert(1)</script>"
    assert page.texts["pre"] == """main --a='x && y'{"a": "</pre>"}"""


def test_table_contains_the_scores_of_the_reports(text, folders):
    reports = [json.loads((path / "report.json").read_text()) for path in folders.values()]
    rows = [[cell for cell, _ in row] for row in Page(text).rows]
    assert rows[0] == ["Hole", "Count", NAME, "telea", "mean"]
    expected = []
    for metric in ("l1_hole", "psnr", "ssim", "psnr_hole"):
        for label, key in (("all", "mean"), ("±", "standard_error")):
            values = [report["summary"][metric][key] for report in reports]
            expected.append([label, str(COUNT) if label == "all" else "", *values])
        for bucket in zip(*(report["by_area"] for report in reports), strict=True):
            values = [row[metric] for row in bucket]
            area = bucket[0]["area"].replace("-", "–")
            expected.append([f"{area} %", str(bucket[0]["count"]), *values])
    expected = [
        [x if isinstance(x, str) else "–" if x is None else f"{x:.3f}" for x in row]
        for row in expected
    ]
    assert [row for row in rows[1:] if len(row) > 1] == expected
    assert len(reports[0]["by_area"]) == 3


def test_best_value_of_each_row_is_marked(text):
    better, marked = None, 0
    for row in Page(text).rows[1:]:
        if len(row) == 1:
            better = min if "L1" in row[0][0] else max
            assert ("lower is better" in row[0][0]) == (better is min)
        elif row[0][0] != "±":
            values = [float(cell) for cell, _ in row[2:] if cell != "–"]
            best = f"{better(values):.3f}"
            assert [cell for cell, kind in row if kind == "best"] == [best]
            marked += 1
    assert marked == 4 * (1 + 3)


def test_row_without_finite_values_has_no_best_one(tmp_path):
    batch = make_batch(count=1)
    perfect = {"completed": batch["image"]}
    scoring.score(lambda _: perfect, [batch], output=tmp_path)
    rows = Page(render({"network": tmp_path})).rows
    marks = {row[2] for row in rows if row[0][0] == "all"}
    assert marks == {("0.000", "best"), ("–", None), ("1.000", "best")}


def test_groups_are_best_median_and_worst_images(text):
    seen = [(group, index) for group, index, *_ in Page(text).images if index]
    groups = {"Best": [30, 29, 28], "Median": [27, 26, 25], "Worst": [22, 23, 24]}
    assert list(dict.fromkeys(seen)) == [(g, i) for g, indices in groups.items() for i in indices]


@pytest.mark.parametrize(
    "count, groups",
    [
        (1, [[0], [], []]),
        (2, [[0], [], [1]]),
        (3, [[0], [1], [2]]),
        (5, [[0], [2], [4]]),
        (6, [[0, 1], [2, 3], [5, 4]]),
        (100, [[0, 1, 2, 3], [48, 49, 50, 51], [99, 98, 97, 96]]),
    ],
)
def test_groups_are_disjoint(count, groups):
    errors = [float(i) for i in range(count - 1)] + [None]  # A non-finite error is the worst.
    extremes = html_report._extremes(errors)
    assert [positions.tolist() for positions in extremes.values()] == groups


def test_page_shows_the_images_of_the_folders(text, folders):
    batch, i = make_batch(), 5
    pictures = Page(text).images_of(30 - i)
    names = ["masked", "first stage", NAME, "error", "attention", "telea", "mean", "truth"]
    assert list(pictures) == names
    image, mask = batch["image"][i], batch["mask"][i]
    completed = complete(batch)["completed"][i]
    assert np.array_equal(pictures["error"], visualization.error_map(completed, image))
    offsets = np.ones((3, 3, 2), int)
    assert np.array_equal(pictures["attention"], visualization.offset_map(offsets, image, mask))
    fill = baseline_complete("mean")(batch)["completed"][i]
    lossy = {
        "masked": np.where(mask, 128, image),
        "first stage": np.full_like(image, 77),
        NAME: completed,
        "mean": fill,
        "truth": image,
    }
    for name, expected in lossy.items():
        distance = {x: np.abs(pictures[name] - y.astype(float)).mean() for x, y in lossy.items()}
        assert min(distance, key=distance.get) == name, distance
        assert abs(pictures[name].mean() - expected.mean()) < 5


def test_each_example_shows_its_own_scores(text, folders):
    values = json.loads((folders[NAME] / "report.json").read_text())["pictures"]
    position = values["index"].index(25)
    expected = f"Hole L1 {values['l1_hole'][position]:.3f} %"
    spans = text.partition("Image 25<")[2].partition("</div>")[0]
    assert f"<span>{expected}</span>" in spans
    assert f"<span>SSIM {values['ssim'][position]:.3f}</span>" in spans


def test_curves_with_known_tags_are_drawn(text, folders):
    assert text.count("<svg") == 1 and "PSNR of validation" in text
    assert "<svg" not in render(folders)


def test_baseline_has_neither_coarse_result_nor_attention(folders):
    page = Page(render({"telea": folders["telea"]}))
    assert list(page.images_of(30)) == ["masked", "telea", "error", "truth"]


def test_large_images_are_scaled_down(tmp_path):
    large = np.zeros((600, 300, 3), np.uint8)
    batch = {
        "image": large[np.newaxis],
        "mask": large[np.newaxis, ..., :1],
        "valid": np.ones(1, bool),
        "index": np.zeros(1, int),
    }
    scoring.score(lambda _: {"completed": batch["image"]}, [batch], output=tmp_path)
    shapes = {array.shape for *_, array in Page(render({"network": tmp_path})).images[2:]}
    assert shapes == {(256, 128, 3)}


def test_evaluations_of_different_holes_are_refused(folders, tmp_path):
    batch = make_batch()
    batch["mask"][0] = 1
    scoring.score(complete, [batch], output=tmp_path)
    with pytest.raises(UsageError, match="evaluations of telea and other are of different"):
        render({"telea": folders["telea"], "other": tmp_path})
