"""Detail that is copied into completions from the known pixels."""

import dataclasses
import logging

import jax
import numpy as np
import pytest
import scipy.ndimage
from made import make_model

from deepfill_jax import weights
from deepfill_jax.inpaint import detail
from deepfill_jax.inpaint.canvas import Canvas
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.resize import resize
from deepfill_jax.inpaint.windows import plan_windows

FACTOR = 4


def textured(height=256, width=256, seed=0):
    """A slow gradient with fine noise, float32 in [-1, 1]; the noise is stronger on the right."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    noise = rng.normal(0, 1, (height, width)) * np.where(columns > width // 2, 0.2, 0.02)
    image = np.stack([rows / height - 0.5, columns / width - 0.5, noise * 0], -1)
    return (image + noise[..., None]).clip(-1, 1).astype(np.float32)


def box(top, left, height, width, shape=(256, 256)):
    hole = np.zeros((*shape, 1), bool)
    hole[top : top + height, left : left + width] = True
    return hole


def smaller(image):
    """The image at a quarter of its size: what a perfect network would return there."""
    return resize(image, image.shape[0] // FACTOR, image.shape[1] // FACTOR)


def deviation(image, hole):
    """Standard deviation of what `smaller` loses."""
    rest = image - resize(smaller(image), *image.shape[:2])
    return rest[hole[..., 0]].std()


@pytest.mark.parametrize("left", [30, 180])
def test_texture_of_the_surroundings_continues_in_the_hole(left):
    image, hole = textured(), box(100, left, 50, 44)
    filled = detail.add_detail(image, hole, smaller(image))
    plain = resize(smaller(image), 256, 256)
    assert deviation(plain, hole) < 0.3 * deviation(image, hole)
    assert 0.7 < deviation(filled, hole) / deviation(image, hole) < 1.3
    # What is coarser than the blur comes from the completion.
    filled, image = (
        scipy.ndimage.gaussian_filter(smaller(x), (detail.BLUR, detail.BLUR, 0))
        for x in (filled, image)
    )
    coarse = np.abs(filled - image)[smaller(hole.astype(np.float32))[..., 0] > 0]
    assert coarse.mean() < 0.03


def test_repeated_pattern_is_continued_exactly():
    rows, columns = np.mgrid[:256, :256]
    pattern = (rows // 4 + columns // 4) % 2 + (rows // 32 + columns // 32) % 2
    image = np.repeat(pattern[..., None] - 1.0, 3, axis=2).astype(np.float32)
    hole = box(96, 96, 64, 64)
    filled = detail.add_detail(image, hole, smaller(image))
    error = np.abs(filled - image)[hole[..., 0]]
    assert np.median(error) < 0.1 and error.mean() < 0.15
    plain = np.abs(resize(smaller(image), 256, 256) - image)[hole[..., 0]]
    assert plain.mean() > 2 * error.mean()


def test_pixels_of_the_hole_have_no_influence():
    image, hole = textured(), box(100, 100, 60, 60)
    completed = smaller(image)
    expected = detail.add_detail(image, hole, completed)
    spoiled = np.where(hole, np.float32(np.nan), image)
    np.testing.assert_array_equal(detail.add_detail(spoiled, hole, completed), expected)


def test_cells_are_blended_without_gaps():
    image = np.full((96, 120, 3), 0.5, np.float32)
    hole = box(30, 30, 40, 50, (96, 120))
    np.testing.assert_allclose(detail.add_detail(image, hole, smaller(image)), image, atol=1e-5)


@pytest.mark.parametrize("hole", [box(0, 0, 256, 256), box(2, 2, 252, 252)])
def test_without_known_surroundings_the_completion_is_enlarged(hole):
    image = textured()
    expected = resize(smaller(image), 256, 256).clip(-1, 1)
    np.testing.assert_array_equal(detail.add_detail(image, hole, smaller(image)), expected)


@pytest.mark.parametrize(("height", "width"), [(255, 131), (101, 256), (40, 90), (20, 12)])
def test_windows_of_any_size(height, width):
    image = textured(height, width)
    hole = box(height // 3, width // 3, height // 4, width // 4, (height, width))
    completed = resize(image, -(-height // 3), -(-width // 3))
    filled = detail.add_detail(image, hole, completed)
    assert filled.shape == image.shape and filled.dtype == np.float32
    assert np.isfinite(filled).all() and np.abs(filled).max() <= 1


@pytest.mark.parametrize("seed", range(5))
def test_sources_contain_no_unknown_pixels(seed):
    rng = np.random.default_rng(seed)
    unknown = np.zeros((64, 80), bool)
    unknown[rng.integers(50) :, rng.integers(70) :][:12, :9] = True
    available = detail.available_sources(unknown)
    margin, stride = detail.KNOWN, detail.STRIDE
    padded = np.pad(unknown, margin, constant_values=True)
    for row, column in np.ndindex(available.shape):
        top, left = row * stride, column * stride
        area = padded[top : top + 4 + 2 * margin, left : left + 4 + 2 * margin]
        assert available[row, column] == (area.shape == (8, 8) and not area.any())


def test_adjacent_cells_take_adjacent_sources_where_both_are_as_good():
    unknown = np.zeros((64, 64), bool)
    unknown[24:40, 24:40] = True
    cells = np.argwhere(unknown.reshape(16, 4, 16, 4).any((1, 3))).astype(np.int32) * 2
    # White noise: all sources are about equally far.
    smooth = np.random.default_rng(0).normal(0, 1e-3, (64, 64, 3)).astype(np.float32)
    sources = np.asarray(detail.choose_sources(smooth, detail.available_sources(unknown), cells))
    offsets = {
        tuple(cell): tuple(source - cell) for cell, source in zip(cells, sources, strict=True)
    }
    pairs = [(a, (a[0], a[1] + 2)) for a in offsets if (a[0], a[1] + 2) in offsets]
    agreeing = np.mean([offsets[a] == offsets[b] for a, b in pairs])
    assert agreeing > 0.3  # Without agreement, 0.


def test_canvas_adds_detail_to_scaled_windows_only_if_asked():
    pixels = ((textured(400, 400) + 1) * 127.5).round().astype(np.uint8)
    hole = np.zeros((400, 400, 1), bool)
    hole[150:250, 250:350] = True
    plan = plan_windows(hole, "crop", 64)
    results = {}
    for asked in (False, True):
        canvas = Canvas(pixels, plan.levels, plan.stages, detail=asked)
        while stage := canvas.pop_stage():
            for window in stage:
                image, unknown = canvas.read_window(window)
                canvas.paste(window, np.where(unknown, image[~unknown[..., 0]].mean(0), image))
        assert not canvas.levels.any()
        np.testing.assert_array_equal(canvas.pixels[~hole[..., 0]], pixels[~hole[..., 0]])
        results[asked] = canvas.pixels[hole[..., 0]].std()
    assert results[True] > 1.5 * results[False]


def crosshatched(image, hole):
    """The completion of a network that predicts the coarse image, with a regular pattern."""
    rows, columns = np.indices(image.shape[:2])
    pattern = 0.1 * ((rows + columns) % 4 < 2)[..., np.newaxis] - 0.05
    smooth = scipy.ndimage.gaussian_filter(image, (3, 3, 0))
    return np.where(hole, smooth + pattern, image).astype(np.float32)


def test_artifacts_at_full_size_are_replaced_by_the_texture_of_the_image():
    image, hole = textured(), box(100, 30, 60, 60)
    completed = crosshatched(image, hole)
    filled = detail.add_detail(image, hole, completed)

    def pattern(x):
        rows, columns = np.indices(image.shape[:2])
        sign = np.where((rows + columns) % 4 < 2, 1, -1)[..., np.newaxis]
        return (x * sign)[105:155, 35:85].mean()

    assert abs(pattern(filled)) < 0.2 * abs(pattern(completed))
    assert 0.7 < deviation(filled, hole) / deviation(image, hole) < 1.3


@pytest.mark.parametrize("asked", [False, True])
@pytest.mark.parametrize(
    ("thickness", "is_thick"), [(8, False), (detail.THICK - 4, False), (detail.THICK + 4, True)]
)
def test_at_full_size_only_thick_holes_get_detail_if_the_model_asks(thickness, is_thick, asked):
    image, hole = textured(), box(100, 20, thickness, 200)
    plan = plan_windows(hole, "original", 256)
    canvas = Canvas(image, plan.levels, plan.stages, detail=True, replace_detail=asked)
    ((window,),) = canvas.stages
    completed = crosshatched(image, hole)
    canvas.paste(window, completed)
    assert detail.is_thick(hole) == is_thick
    assert (canvas.pixels != completed).any() == (is_thick and asked)


def test_large_completions_are_compared_at_a_smaller_scale(monkeypatch):
    image, hole = textured(), box(100, 30, 60, 60)
    seen = []
    choose_sources = detail.choose_sources

    def spy(smooth, *others):
        seen.append(smooth.shape)
        return choose_sources(smooth, *others)

    monkeypatch.setattr(detail, "LARGEST", 128)
    monkeypatch.setattr(detail, "choose_sources", spy)
    filled = detail.add_detail(image, hole, crosshatched(image, hole))
    assert seen == [(128, 128, 3)] and filled.shape == image.shape
    assert 0.7 < deviation(filled, hole) / deviation(image, hole) < 1.3


@pytest.mark.parametrize("number", [1, 3])
def test_few_sources_are_enough(number):
    hole = box(8, 8, 24, 24, (40, 40))
    hole[:8], hole[:, :8] = True, True
    hole[32:, : 40 - 4 * number] = True
    image = textured(40, 40)
    filled = detail.add_detail(image, hole, crosshatched(image, hole))
    assert np.isfinite(filled).all()


@pytest.mark.parametrize("asks", [None, False, True])
def test_metadata_of_a_model_ask_for_detail_at_full_size(asks, tmp_path):
    path = tmp_path / "a.safetensors"
    model = make_model("official")
    metadata = {} if asks is None else {"replace_detail": asks}
    weights.save(path, dataclasses.replace(model, metadata=metadata))
    pixels = ((textured(128, 128) + 1) * 127.5).round().astype(np.uint8)
    hole = box(40, 40, 40, 40, (128, 128))
    inpainter = Inpainter.load(path)
    with_detail, without = (inpainter(pixels, hole, detail=detail) for detail in (True, False))
    assert (with_detail != without).any() == bool(asks)


def test_nothing_is_compiled_for_images_of_many_sizes(caplog):
    rng = np.random.default_rng(0)
    with jax.log_compiles(), caplog.at_level(logging.WARNING, "jax"):
        for height, width in rng.integers(80, 300, (12, 2)):
            image = textured(height, width)
            hole = box(height // 4, width // 4, 50, 50, (height, width))
            detail.add_detail(image, hole, image)
            detail.add_detail(image, hole, resize(image, height // 2, width // 2))
    assert not caplog.messages
