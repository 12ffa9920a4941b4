"""Fixtures and helpers for tests of the web UI and its HTTP API without a browser.

Test files load the fixtures with `pytest_plugins`.
"""

import io
import json
import struct
import zlib

import numpy as np
import pytest
from fastapi.testclient import TestClient
from made import make_model, make_picture
from PIL import Image

from deepfill_jax.app.guard import Guard
from deepfill_jax.app.service import Service
from deepfill_jax.app.web import make_app
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.pictures import preview

HEIGHT, WIDTH = 40, 56
# Size of images that are larger than their painted layer. Extended images get the same padded size,
# 48x64, because the network is compiled for each size.
LARGE = (47, 63)
LOCAL = "http://127.0.0.1"
SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/api/inpaint",
    "raw_path": b"/api/inpaint",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")],
}
OPTIONS = ("tiny", "auto", 32, True, True, 0, 0, 0, 0, 0, 0)


@pytest.fixture(scope="session")
def model():
    return make_model("official")


@pytest.fixture(scope="session")
def inpainter(model):
    return Inpainter(model)


@pytest.fixture(scope="session")
def guided_model():
    return make_model("official", guided=True)


@pytest.fixture(scope="session")
def guided(guided_model):
    return Inpainter(guided_model)


@pytest.fixture(scope="session")
def service(model, guided_model):
    models = {"tiny": model, "same": model, "guided": guided_model}
    service = Service(models, max_pixels=10_000, waiting=2)
    yield service
    service.worker.close()


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="session")
def app(service, folder):
    return make_app(service, folder, hosts=("127.0.0.1",), max_bytes=200_000)


@pytest.fixture(scope="session")
def client(app):
    with TestClient(app, base_url=LOCAL) as client:
        yield client


@pytest.fixture
def uploaded(client):
    """Returns a function that uploads a file as the web UI does and returns gradio's reference."""

    def upload(data, name="a.png"):
        answer = client.post("/gradio_api/upload", files={"files": (name, data)})
        assert answer.status_code == 200, answer.text
        return {"path": answer.json()[0], "orig_name": name, "meta": {"_type": "gradio.FileData"}}

    return upload


@pytest.fixture
def called(client):
    """Returns a function that calls an event handler as the web UI does and returns its updates."""
    dependencies = client.get("/config").json()["dependencies"]
    functions = {function["api_name"]: function["id"] for function in dependencies}

    def call(name, *data, session="me"):
        body = {"data": data, "fn_index": functions[name], "session_hash": session}
        joined = client.post("/gradio_api/queue/join", json=body)
        assert joined.status_code == 200
        own = joined.json()
        events = client.get("/gradio_api/queue/data", params={"session_hash": session}).text
        messages = [json.loads(x[6:]) for x in events.splitlines() if x.startswith("data: ")]
        (completed,) = (
            x for x in messages if x["msg"] == "process_completed" and own.items() <= x.items()
        )
        call.warnings = [x["log"] for x in messages if x["msg"] == "log"]
        return completed["output"].get("error") or completed["output"]["data"]

    return call


def file(pixels, kind="PNG", **options):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


def make_request(seed=0):
    """Returns an image, its mask, and the files of a request to inpaint it."""
    picture, mask = make_picture(HEIGHT, WIDTH, seed)
    return picture, mask, {"image": ("a.png", file(picture)), "mask": ("m.png", file(mask))}


PICTURE, MASK, _ = make_request()


def ask(client, files, **fields):
    return client.post("/api/inpaint", files=files, data=fields)


def pixels_of(answer):
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        return np.asarray(picture)


def refused(answer, status):
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/json"
    body = answer.json()
    assert list(body) == ["error"] and "Traceback" not in body["error"]
    return body["error"]


def guarded_client(app, **options):
    return TestClient(Guard(app.app, app.service, **options), base_url=LOCAL)


def bomb():
    """Returns a PNG of a few kB that declares 200 megapixels of zeros."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def stroke(*, height=HEIGHT, width=WIDTH):
    """Returns a layer of the editor with a painted hole, and the hole."""
    layer = np.zeros((height, width, 4), np.uint8)
    layer[height // 4 : height // 2, width // 4 : width // 2] = (*preview.HOLE, 153)
    return file(layer), layer[..., 3] > 0


def filled(uploaded, called, layer, *options, session="me"):
    painted = uploaded(layer, "layer.png")
    editor = {"background": None, "layers": [painted], "composite": None}
    changes = called("fill", editor, *options, session=session)
    return changes
