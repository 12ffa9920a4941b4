"""Scoring: computed metrics, written files, and error messages."""

import json
import os
import socket
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from deepfill_jax.errors import UsageError
from deepfill_jax.evaluate import metrics, scoring, visualization
from deepfill_jax.evaluate.methods import baseline_complete, folder_complete

SIZE = 16


def make_batches(count=11, batch_size=4, seed=0):
    """Makes batches like the pipeline's; the padding of the last one contains random values."""
    rng = np.random.default_rng(seed)
    padded = -(-count // batch_size) * batch_size
    y, x = np.mgrid[:SIZE, :SIZE] / SIZE
    smooth = np.stack([x, y, (x + y) / 2], axis=-1) * rng.uniform(100, 255, (padded, 1, 1, 1))
    mask = np.zeros((padded, SIZE, SIZE, 1), np.uint8)
    for i in range(padded):
        mask[i, 4 : 6 + i % 8, 3:12] = 1
    examples = {
        "image": smooth.astype(np.uint8),
        "mask": mask,
        "valid": np.arange(padded) < count,
        "index": np.arange(padded, dtype=np.int64)[::-1] + 5,
    }
    examples["image"][count:] = rng.integers(0, 256, (padded - count, SIZE, SIZE, 3))
    return [
        {key: array[start : start + batch_size] for key, array in examples.items()}
        for start in range(0, padded, batch_size)
    ]


def joined(batches, key):
    return np.concatenate([batch[key][batch["valid"]] for batch in batches])


def brighten(batch):
    """Fills the hole with the ground truth plus 120.75, which exceeds 255 in places."""
    brightened = batch["image"] + np.float32(120.75)
    return {"completed": np.where(batch["mask"] > 0, brightened, batch["image"])}


def spoil_padding(batch):
    result = brighten(batch)
    result["completed"][~batch["valid"]] = np.nan
    return result


def make_report(area, **values):
    values = {"hole_area": area, **values}
    values = {name: np.asarray(value, np.float32) for name, value in values.items()}
    return scoring.Report(np.arange(len(area)), values)


def test_report_contains_the_metrics_of_each_image_sorted_by_index():
    batches = make_batches()
    report = scoring.score(brighten, batches)
    order = np.argsort(joined(batches, "index"))
    assert np.array_equal(report.index, joined(batches, "index")[order])
    image, mask = joined(batches, "image")[order], joined(batches, "mask")[order]
    completed = brighten({"image": image, "mask": mask})["completed"]
    expected = metrics.measure(completed, image, mask)
    assert report.values.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(report.values[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
    np.testing.assert_allclose(report.values["l1_hole"], 100 * 120.75 / 255, rtol=1e-5)


def test_padding_does_not_change_the_scores():
    clean, spoilt = (scoring.score(c, make_batches()) for c in (brighten, spoil_padding))
    assert len(spoilt.index) == 11
    assert spoilt.summary() == clean.summary()


def test_batch_size_does_not_change_the_scores():
    small, large = (scoring.score(brighten, make_batches(8, size)) for size in (2, 8))
    np.testing.assert_allclose(small.values["psnr"], large.values["psnr"], rtol=1e-5)


def test_summary_contains_mean_and_standard_error():
    report = make_report([0.2, 0.2, 0.2], psnr=[20, 22, 27])
    assert report.summary()["psnr"] == pytest.approx(
        {"mean": 23, "standard_error": np.std([20, 22, 27], ddof=1) / np.sqrt(3), "count": 3}
    )


def test_mean_omits_infinite_psnr_but_not_nan():
    summary = make_report([0.2] * 3, psnr=[20, 22, np.inf], ssim=[1, np.nan, 1]).summary()
    assert summary["psnr"]["mean"] == 21 and summary["psnr"]["count"] == 2
    assert np.isnan(summary["ssim"]["mean"]) and summary["ssim"]["count"] == 3


def test_by_area_groups_images_by_hole_area():
    report = make_report([0.0, 0.0999, 0.1, 0.5, 0.6, 1.0], l1_hole=[1, 3, 5, 7, 9, 12])
    rows = [(row["area"], row["count"], row["l1_hole"]) for row in report.by_area()]
    assert rows == [("0-10", 2, 2), ("10-20", 1, 5), ("50-60", 1, 7), ("60+", 2, 10.5)]


def test_table_lists_every_bucket_in_aligned_columns():
    lines = make_report([0.05, 0.25], psnr=[21.5, 23.5], l1_hole=[3, 5]).table().splitlines()
    assert len({len(line) for line in lines}) == 1
    assert lines[0].split() == ["images", "hole_area", "psnr", "l1_hole"]
    assert lines[1].split() == ["mean", "2", "0.1500", "22.5000", "4.0000"]
    assert lines[4].split() == ["hole", "20-30", "%", "1", "0.2500", "23.5000", "5.0000"]


def test_json_is_strict_and_contains_all_values():
    report = make_report([0.2, 0.3], psnr=[20.5, np.inf])
    read = json.loads(report.as_json(), parse_constant=pytest.fail)
    assert read["pictures"] == {
        "index": [0, 1],
        "hole_area": pytest.approx([0.2, 0.3]),
        "psnr": [20.5, None],
    }
    assert read["summary"]["psnr"] == {"mean": 20.5, "standard_error": None, "count": 1}
    assert [row["area"] for row in read["by_area"]] == ["20-30", "30-40"]


def test_written_images_are_rounded_and_clipped(tmp_path):
    batches = make_batches()
    report = scoring.score(spoil_padding, batches, output=tmp_path / "new" / "out")
    index = joined(batches, "index")
    expected = {
        "image": joined(batches, "image"),
        "mask": 255 * joined(batches, "mask")[..., 0],
        "completed": np.where(joined(batches, "mask"), 121, 0) + joined(batches, "image"),
    }
    assert expected["completed"].max() > 255
    for kind, images in expected.items():
        folder = tmp_path / "new" / "out" / kind
        assert sorted(p.name for p in folder.iterdir()) == sorted(f"{i:06d}.png" for i in index)
        for i, image in zip(index, images, strict=True):
            written = np.asarray(Image.open(folder / f"{i:06d}.png"))
            assert np.array_equal(written, np.clip(image, 0, 255)), (kind, i)
    written = json.loads((tmp_path / "new" / "out" / "report.json").read_text())
    assert written["summary"]["ssim"]["mean"] == pytest.approx(report.summary()["ssim"]["mean"])


def test_coarse_results_and_attention_of_a_network_are_written(tmp_path):
    batches = make_batches(count=3)

    def complete(batch):
        offsets = np.stack([np.full((2, 2, 2), index) for index in batch["index"]])
        coarse = np.full(batch["image"].shape, batch["index"][:, None, None, None] + 0.6)
        return brighten(batch) | {"coarse": coarse, "offsets": offsets}

    scoring.score(complete, batches, output=tmp_path)
    (batch,) = batches
    for index, image, mask in list(zip(*map(batch.get, ("index", "image", "mask")), strict=True))[
        :3
    ]:
        coarse, attention = (
            np.asarray(Image.open(tmp_path / kind / f"{index:06d}.png"))
            for kind in ("coarse", "attention")
        )
        assert (coarse == index + 1).all()
        expected = visualization.offset_map(np.full((2, 2, 2), index), image, mask)
        assert np.array_equal(attention, expected)
    with pytest.raises(UsageError, match="contains files"):
        scoring.score(brighten, batches, output=tmp_path)


def test_grid_shows_the_first_eight_examples(tmp_path):
    batches = make_batches()
    scoring.score(brighten, batches, output=tmp_path)
    grid = np.asarray(Image.open(tmp_path / "grid.png"))
    assert grid.shape == (8 * SIZE, 3 * SIZE, 3)
    image, mask = batches[1]["image"][2], batches[1]["mask"][2]  # The seventh.
    masked, completed, truth = np.split(grid[6 * SIZE : 7 * SIZE], 3, axis=1)
    assert np.array_equal(truth, image)
    assert np.array_equal(masked, np.where(mask > 0, 128, image))
    assert np.array_equal(completed[mask[..., 0] == 0], image[mask[..., 0] == 0])


def test_sample_grid_has_an_example_per_row():
    columns = [np.full((2, 3, 5, 3), [[[[10 * n]]], [[[10 * n + 1]]]], np.uint8) for n in range(4)]
    grid = scoring.sample_grid(columns)
    assert grid.shape == (6, 20, 3) and grid.dtype == np.uint8
    assert grid[::3, ::5, 0].tolist() == [[0, 10, 20, 30], [1, 11, 21, 31]]


def test_baseline_keeps_known_pixels_and_skips_padding():
    *_, last = make_batches()
    completed = baseline_complete("telea")(last)["completed"]
    known = last["mask"][..., 0] == 0
    assert completed.dtype == np.float32
    assert np.array_equal(completed[known], last["image"][known])
    assert np.array_equal(completed[~last["valid"]], last["image"][~last["valid"]])
    assert np.any(completed != last["image"])
    none = last | {"valid": np.zeros(4, bool)}
    untouched = baseline_complete("telea")(none)["completed"]
    assert np.array_equal(untouched, last["image"])


def test_telea_scores_better_than_mean_colour():
    score = {
        name: scoring.score(baseline_complete(name), make_batches()).summary()
        for name in ("telea", "mean")
    }
    assert score["telea"]["l1_hole"]["mean"] < 0.7 * score["mean"]["l1_hole"]["mean"]
    assert score["telea"]["psnr"]["mean"] > score["mean"]["psnr"]["mean"] + 2


def test_unknown_baseline_lists_the_baselines():
    with pytest.raises(UsageError, match="'tela'.*biharmonic, mean, navier_stokes.*telea"):
        baseline_complete("tela")


def test_written_folder_scores_like_the_method_that_wrote_it(tmp_path):
    complete = baseline_complete("telea")
    wrote = scoring.score(complete, make_batches(), output=tmp_path)
    read = scoring.score(folder_complete(tmp_path / "completed"), make_batches())
    assert np.array_equal(read.index, wrote.index)
    for name, value in wrote.values.items():
        assert np.array_equal(read.values[name], value), name


def test_jpeg_results_are_read(tmp_path):
    batches = make_batches(count=2, batch_size=2)
    for i, image in zip(batches[0]["index"], batches[0]["image"], strict=True):
        Image.fromarray(image // 2).save(tmp_path / f"{i:06d}.jpg", quality=95)
    completed = folder_complete(tmp_path)(batches[0])["completed"]
    assert np.abs(completed - batches[0]["image"] // 2).mean() < 3


def test_unusable_results_are_named(tmp_path):
    (batch,) = make_batches(count=3)
    with pytest.raises(UsageError, match="nowhere is not a folder"):
        folder_complete(tmp_path / "nowhere")
    complete = folder_complete(tmp_path)
    first, second, third = (tmp_path / f"{i:06d}.png" for i in batch["index"][:3])
    with pytest.raises(UsageError, match=f"{first.name} is missing"):
        complete(batch)
    Image.fromarray(batch["image"][0]).save(first)
    Image.fromarray(batch["image"][1, :9]).save(second)
    with pytest.raises(UsageError, match=rf"{second.name} has .* \(9, 16\), .* \(16, 16\)"):
        complete(batch)
    Image.fromarray(batch["image"][1]).save(second)
    third.write_bytes(first.read_bytes()[:60])
    with pytest.raises(UsageError, match=f"{third.name} cannot be read"):
        complete(batch)
    third.write_bytes(b"not an image")
    with pytest.raises(UsageError, match=f"{third.name} cannot be read"):
        complete(batch)


def test_output_folder_of_an_earlier_run_is_refused(tmp_path):
    scoring.score(brighten, make_batches(), output=tmp_path)
    with pytest.raises(UsageError, match="image contains files"):
        scoring.score(brighten, make_batches(count=3), output=tmp_path)


def test_output_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    for output in (tmp_path / "file", tmp_path / "file/below"):
        with pytest.raises(UsageError, match=f"{output.name} cannot be created"):
            scoring.score(brighten, make_batches(), output=output)


@pytest.mark.parametrize(
    "batches", [[], [b | {"valid": np.zeros(4, bool)} for b in make_batches()]]
)
def test_no_image_raises_an_error(batches):
    with pytest.raises(UsageError, match="no image"):
        scoring.score(brighten, batches)


PROCESS = """
import sys
import jax
jax.distributed.initialize(sys.argv[1], 2, int(sys.argv[2]), coordinator_bind_address=sys.argv[1])
sys.path.insert(0, sys.argv[3])
import test_evaluate
from deepfill_jax.evaluate import scoring
batches = test_evaluate.make_batches(count=13)[int(sys.argv[2])::2]
report = scoring.score(test_evaluate.spoil_padding, batches, output=sys.argv[4])
print(report.as_json())
"""


def test_two_processes_report_the_same_as_one(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    command = [sys.executable, "-W", "error", "-c", PROCESS, address]
    processes = [
        subprocess.Popen(
            [*command, str(i), os.path.dirname(__file__), tmp_path],
            stdout=subprocess.PIPE,
            env=os.environ | {"JAX_PLATFORMS": "cpu"},
            text=True,
        )
        for i in range(2)
    ]
    texts = [process.communicate(timeout=60)[0] for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    alone = json.loads(scoring.score(brighten, make_batches(count=13)).as_json())
    for text in texts:
        pictures = json.loads(text[text.index("{") :])["pictures"]
        assert pictures.keys() == alone["pictures"].keys()
        for name, values in alone["pictures"].items():
            assert pictures[name] == pytest.approx(values), name
    assert len(list((tmp_path / "completed").iterdir())) == 13
    assert (tmp_path / "report.json").exists() and (tmp_path / "grid.png").exists()
