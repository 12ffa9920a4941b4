"""A mask file has the same hole in Python, the folder command, HTTP, the web UI and training."""

import io
import types

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made import make_model
from PIL import Image

from deepfill_jax import masks
from deepfill_jax.app.filling import Filler
from deepfill_jax.app.service import Service
from deepfill_jax.app.sessions import Source
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.web import make_app
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.convert import sources
from deepfill_jax.inpaint import __main__ as inpaint
from deepfill_jax.inpaint.inpainter import Inpainter

SIDE = 16
HOLE = np.zeros((SIDE, SIDE), bool)
HOLE[4:12, 3:9] = True
IMAGE = np.full((SIDE, SIDE, 3), 90, np.uint8)


def grey(values, mode=None):
    picture = Image.fromarray(values)
    return picture if mode is None else picture.convert(mode)


WHITE = np.where(HOLE, 255, 0).astype(np.uint8)


def palette(values):
    picture = Image.fromarray(values.astype(np.uint8))
    picture.putpalette([0, 0, 0, 255, 255, 255])
    return picture


def layer(red, green, blue, alpha):
    channels = [np.broadcast_to(np.asarray(x, np.uint8), HOLE.shape) for x in (red, green, blue)]
    return Image.fromarray(np.dstack([*channels, alpha]))


KINDS = {
    "0/1": grey(HOLE.astype(np.uint8)),
    "0/255": grey(WHITE),
    "grey": grey(np.where(HOLE, 180, 90).astype(np.uint8)),
    "mode 1": grey(WHITE, "1"),
    "palette": grey(WHITE, "RGB").quantize(4),
    "palette with transparency": palette(HOLE),
    "RGB": grey(WHITE, "RGB"),
    "RGB 0/1": grey(HOLE.astype(np.uint8), "RGB"),
    "16 bits": grey(np.where(HOLE, 60000, 9000).astype(np.uint16)),
    "16 bits 0/1": grey(HOLE.astype(np.uint16)),
    "white, opaque": grey(WHITE, "RGBA"),
    "white on alpha": layer(255, 255, 255, WHITE),
    "black on alpha": layer(0, 0, 0, WHITE),
    "painted in red": layer(255, 0, 0, np.where(HOLE, 200, 0).astype(np.uint8)),
    "grey with alpha": grey(WHITE, "LA"),
}
OPTIONS = {"palette with transparency": {"transparency": bytes([0, 255])}}


@pytest.fixture(params=KINDS)
def mask_file(request, tmp_path):
    """A folder with a mask of a kind in `masks`."""
    (tmp_path / "masks").mkdir()
    path = tmp_path / "masks/a.png"
    KINDS[request.param].save(path, **OPTIONS.get(request.param, {}))
    return path


class Marks(Inpainter):
    """Makes white of the hole that it is given, without a network."""

    def _run(self, height, width, image, mask, *_, **__):
        white = np.ones((*mask.shape[:3], 3), np.float32)
        return type("Marked", (), {"completed": white})


@pytest.fixture(scope="module")
def model():
    return make_model("official")


@pytest.fixture(scope="module")
def client(model, tmp_path_factory):
    service = Service({"marks": model})
    filler = Filler({"marks": model}, Limits(), Flags())
    filler._inpainters = {"marks": Marks(model)}
    # In this process, where the network can be replaced.
    service.worker.run = lambda stop, job, *arguments: job(filler, *arguments)
    app = make_app(service, tmp_path_factory.mktemp("pages"), hosts=(), max_bytes=10**6)
    with TestClient(app, base_url="http://127.0.0.1") as client:
        yield client


def hole_in(pixels):
    return (np.asarray(pixels) == 255).all(axis=-1)


def test_a_mask_file_has_the_same_hole_everywhere(mask_file, model, client, monkeypatch):
    folder = mask_file.parents[1]
    Image.fromarray(IMAGE).save(folder / "a.png")
    image, inpainter = (folder / "a.png").read_bytes(), Marks(model)

    by_python = hole_in(inpainter(IMAGE, mask_file))

    read = types.SimpleNamespace(model=model, files=())
    monkeypatch.setattr(sources, "read", lambda source: read)
    monkeypatch.setattr("deepfill_jax.inpaint.inpainter.Inpainter", lambda *_, **options: inpainter)
    places = ("--images", folder / "a.png", "--masks", mask_file.parent, "--output", folder / "out")
    inpaint.main(["--model", "marks", *map(str, places)])
    by_command = hole_in(Image.open(folder / "out/a.png"))

    files = {"image": ("a.png", image), "mask": ("m.png", mask_file.read_bytes())}
    answer = client.post("/api/inpaint", files=files)
    assert answer.status_code == 200, answer.text
    by_http = hole_in(Image.open(io.BytesIO(answer.content)))

    source = Source(folder / "a.png", "a.png", mask=mask_file, mask_name="m.png")
    on_page = source.read(10**6).hole

    draw = masks.sampler({"folder": 1.0}, min_area=0.1, max_area=0.9, folder=str(mask_file.parent))
    in_training = draw(np.random.default_rng(0), SIDE, SIDE)[..., 0] > 0

    for found in (by_python, by_command, by_http, on_page[..., 0], in_training):
        np.testing.assert_array_equal(found, HOLE)
