"""The programs that `Inpainter` compiles: their number, sizes and memory."""

import concurrent.futures
import gc
import multiprocessing
import re
import weakref
from pathlib import Path

import jax
import jax.extend
import numpy as np
import pytest
from made import make_model, make_picture

from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.network import compiled_side


def test_sizes_of_one_padded_size_share_a_compilation():
    inpainter = Inpainter(make_model("official"))
    for height, width in [(1, 1), (3, 8), (8, 8), (7, 5)]:
        inpainter(*make_picture(height, width), check_mask=False)
    assert len(inpainter._network.programs) == 1


def test_a_hundred_sizes_compile_two_programs():
    inpainter = Inpainter(make_model("official"), working_size=32)
    rng = np.random.default_rng(0)
    for _ in range(100):
        height, width = rng.integers(33, 97, 2)
        mask = np.zeros((height, width, 1), bool)
        mask[5:12, 7:9] = mask[-9:, -9:] = True
        inpainter(np.zeros((height, width, 3), np.uint8), mask, strategy="crop")
    assert len(inpainter._network.programs) <= 2  # For one window, and for two.


def test_number_of_compiled_programs_is_limited(monkeypatch):
    monkeypatch.setattr("deepfill_jax.inpaint.network.MAX_PROGRAMS", 2)
    monkeypatch.setattr("deepfill_jax.inpaint.network._networks", weakref.WeakSet())
    inpainter = Inpainter(make_model("official"))
    expected = inpainter(*make_picture(8, 8))
    for width, kept in [(16, 2), (8, 2), (24, 1), (32, 2)]:
        inpainter(*make_picture(8, width))
        assert len(inpainter._network.programs) == kept
    np.testing.assert_array_equal(inpainter(*make_picture(8, 8)), expected)


def test_compiled_sides_are_few_and_not_much_larger():
    sides = range(1, 4097)
    compiled = [compiled_side(side) for side in sides]
    assert all(side <= c and c % 8 == 0 for side, c in zip(sides, compiled, strict=True))
    assert all(c <= 1.25 * side for side, c in zip(sides, compiled, strict=True) if side >= 32)
    assert len({c for side, c in zip(sides, compiled, strict=True) if side > 256}) == 16


def test_host_code_runs_nothing_of_jax(monkeypatch):
    """An operation of JAX outside a compiled program would be compiled for every new size."""
    inpainters = [Inpainter(make_model("official", guided=guided)) for guided in (False, True)]
    options = [
        {"strategy": "original"},
        {"strategy": "resize", "dilate": 2, "feather": 1},
        {"strategy": "crop", "dilate": 1},
    ]

    def complete(height, width):
        image, mask = make_picture(height, width)
        for inpainter in inpainters:
            for given in (image, image[..., 0], image.astype(np.uint16), image / 127.5 - 1.0):
                for option in options:
                    inpainter(given, mask, **option)
            inpainter([image, image], [mask, mask])
            inpainter.predict(np.zeros((1, height, width, 3)), mask[np.newaxis, ..., np.newaxis])

    complete(33, 38)  # Compiles for 40x40 pixels, the size of all below.
    compiled = [dict(inpainter._network.programs) for inpainter in inpainters]

    def refuse(primitive, *_, **__):
        raise AssertionError(f"{primitive} ran outside a compiled program")

    monkeypatch.setattr(jax.extend.core.Primitive, "bind", refuse)
    for height, width in [(34, 39), (39, 34), (40, 40)]:
        complete(height, width)
    assert compiled == [inpainter._network.programs for inpainter in inpainters]


def measure_300_sizes():
    """Returns megabytes and memory maps after ten sizes and after 300, and numbers of programs."""
    inpainter = Inpainter(make_model("official"))

    def complete(sizes):
        for height, width in sizes:
            inpainter(*make_picture(height, width), strategy="original", dilate=2, feather=1)
        gc.collect()
        kilobytes = re.search(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())[1]
        maps = Path("/proc/self/maps").read_text().count("\n")
        return int(kilobytes) / 1e3, maps, len(inpainter._network.programs)

    sizes = [(65 + i % 16, 65 + i // 16) for i in range(300)]  # Padded to 80x80 or 80x96 pixels.
    return complete(sizes[::30]), complete(sizes)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="needs Linux's /proc")
def test_300_sizes_leave_memory_and_maps_flat():
    # In a new process, because the memory of this one also depends on the tests before.
    spawn = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, spawn) as process:
        few, many = process.submit(measure_300_sizes).result()
    (megabytes, maps, programs), (more_megabytes, more_maps, more_programs) = few, many
    assert programs == more_programs == 2
    assert more_megabytes < megabytes + 30 and more_maps < maps + 40


def test_networks_share_the_limit_of_programs(monkeypatch):
    monkeypatch.setattr("deepfill_jax.inpaint.network.MAX_PROGRAMS", 2)
    monkeypatch.setattr("deepfill_jax.inpaint.network._networks", weakref.WeakSet())
    first, second = (Inpainter(make_model("official")) for _ in range(2))
    kept = []
    for inpainter, width in [(first, 8), (second, 8), (second, 16), (first, 8)]:
        inpainter(*make_picture(8, width))
        kept.append([len(x._network.programs) for x in (first, second)])
    assert kept == [[1, 0], [1, 1], [0, 1], [1, 1]]
