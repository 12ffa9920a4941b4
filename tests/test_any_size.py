"""Images and holes of any size: size and known pixels are kept, and all values are finite.

For ten thousand cases, run ANY_SIZE_CASES=1250 pytest --dist load tests/test_any_size.py
"""

import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made import make_model

from deepfill_jax.inpaint.inpainter import Inpainter

CASES = int(os.environ.get("ANY_SIZE_CASES", 3))  # Cases per architecture and band of heights.
# Each band has fewer compiled sizes than an `Inpainter` keeps.
HEIGHTS = [(1, 24), (25, 48), (49, 80), (81, 97)]

INPAINTERS = {
    name: Inpainter(make_model(name), working_size=24, attention_memory=4096)
    for name in ("official", "mmagic")
}


@st.composite
def masks(draw, height, width):
    """Draws a mask, bool or float32 [H, W, 1]: empty, full, a pixel, a border, boxes, or noise."""
    kind = draw(st.sampled_from(["empty", "full", "pixel", "border", "boxes", "noise", "soft"]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    mask = np.zeros((height, width, 1), bool)
    if kind == "full":
        mask[...] = True
    elif kind == "pixel":
        mask[rng.integers(height), rng.integers(width)] = True
    elif kind == "border":
        mask[:, 0] = mask[-1] = True
    elif kind == "boxes":
        for _ in range(3):
            top, left = rng.integers(height), rng.integers(width)
            mask[top : top + rng.integers(1, 40), left : left + rng.integers(1, 40)] = True
    elif kind == "noise":
        mask = rng.uniform(size=mask.shape) < rng.uniform()
    elif kind == "soft":
        return rng.uniform(size=mask.shape).astype(np.float32)
    return mask


@st.composite
def cases(draw, heights):
    height, width = draw(st.integers(*heights)), draw(st.integers(1, 97))
    count = draw(st.integers(1, 2))
    dtype = draw(st.sampled_from([np.uint8, np.uint16, np.float32]))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    full = 1 if dtype == np.float32 else np.iinfo(dtype).max
    images = (rng.uniform(size=(count, height, width, 3)) * full).astype(dtype)
    return images, np.stack([draw(masks(height, width)) for _ in range(count)])


@pytest.mark.parametrize("heights", HEIGHTS)
@pytest.mark.parametrize("name", INPAINTERS)
@settings(max_examples=CASES, deadline=None, derandomize=True)
@given(
    data=st.data(),
    strategy=st.sampled_from(["auto", "original", "resize", "crop"]),
    care=st.sampled_from([(0, 0), (2, 0), (3, 3)]),
)
def test_result_keeps_size_and_known_pixels_and_is_finite(name, heights, data, strategy, care):
    images, masks = data.draw(cases(heights))
    dilate, feather = care
    edges = {"dilate": dilate, "feather": feather}
    completed = INPAINTERS[name](images, masks, strategy=strategy, check_mask=False, **edges)
    assert completed.shape == images.shape and completed.dtype == images.dtype
    assert np.isfinite(completed).all()
    for image, mask, result in zip(images, masks, completed, strict=True):
        hole = mask[..., 0] > (0.5 if mask.max() <= 1 else 127.5)
        rows, columns = np.nonzero(hole)
        known = np.ones(hole.shape, bool)  # Pixels farther from the hole than `dilate`.
        for down in range(-dilate, dilate + 1):
            for right in range(-dilate, dilate + 1):
                if down**2 + right**2 <= dilate**2:
                    near = np.clip(rows + down, 0, hole.shape[0] - 1)
                    beside = np.clip(columns + right, 0, hole.shape[1] - 1)
                    inside = (near == rows + down) & (beside == columns + right)
                    known[near[inside], beside[inside]] = False
        np.testing.assert_array_equal(result[known], image[known])
