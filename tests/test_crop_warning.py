"""Training warns if its images are not larger than the crop."""

import pytest
import training
from data_streams import write_pictures
from PIL import Image
from test_evaluation import make_config

from deepfill_jax.data import streams
from deepfill_jax.train import loop

pytest_plugins = ["training"]


@pytest.mark.parametrize(
    "crop, warned", [(0, False), (39, False), (40, True), (384, True)], ids=str
)
def test_images_not_larger_than_the_crop_are_warned_of(tmp_path, caplog, crop, warned):
    write_pictures(tmp_path, 3, size=40)
    changes = {"data.source": f"folder:{tmp_path}", "data.crop_size": crop, "batch_size": 8}
    values = make_config(tmp_path, **changes)
    streams.warn_of_whole_crops(values, streams.open_source(values))
    message = f"images of 40 x 40 px are not larger than config.data.crop_size={crop}, "
    assert (message in caplog.text) == warned


def test_wide_images_are_cropped_along_one_side(tmp_path, caplog):
    Image.new("RGB", (80, 40)).save(tmp_path / "a.png")
    changes = {"data.source": f"folder:{tmp_path}", "data.crop_size": 40}
    values = make_config(tmp_path, **changes)
    streams.warn_of_whole_crops(values, streams.open_source(values))
    assert "not larger" not in caplog.text


@pytest.mark.usefixtures("shared_programs")
def test_training_checks_the_size_of_its_images(tmp_path, caplog):
    write_pictures(tmp_path, 3, size=40)
    changes = {"data.crop_size": 40, "num_steps": 1, "eval.every": 0}
    loop.train(training.make_config(tmp_path, **changes), tmp_path / "run")
    assert "images of 40 x 40 px are not larger than config.data.crop_size=40" in caplog.text
