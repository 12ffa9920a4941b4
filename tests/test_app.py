"""Tests of the web UI and its HTTP API without a browser."""

import asyncio
import io
import json
import os
import signal
import struct
import subprocess
import sys
import threading
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import gradio as gr
import gradio.processing_utils
import numpy as np
import pytest
from fastapi.testclient import TestClient
from made import make_model, make_picture
from PIL import Image

from deepfill_jax import pictures, trained, weights
from deepfill_jax.app import __main__ as command
from deepfill_jax.app import actions, exchange, hosts, jobs, layout, painting
from deepfill_jax.app.api import make_api
from deepfill_jax.app.filling import Filler, Options, Summary
from deepfill_jax.app.guard import Guard, Login
from deepfill_jax.app.layout import Layout
from deepfill_jax.app.queue import CancelledError, QueueFullError
from deepfill_jax.app.reading import plain_name
from deepfill_jax.app.registry import available
from deepfill_jax.app.service import Service
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.web import make_app
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.app.worker import Worker
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.inpaint.canvas import extend
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.inpaint.windows import STRATEGIES

HEIGHT, WIDTH = 40, 56
# Size of images that are larger than their painted layer. Extended images get the same padded size,
# 48x64, because the network is compiled for each size.
LARGE = (47, 63)
LOCAL = "http://127.0.0.1"


@pytest.fixture(scope="module")
def model():
    return make_model("official")


@pytest.fixture(scope="module")
def inpainter(model):
    return Inpainter(model)


@pytest.fixture(scope="module")
def guided_model():
    return make_model("official", guided=True)


@pytest.fixture(scope="module")
def guided(guided_model):
    return Inpainter(guided_model)


@pytest.fixture(scope="module")
def service(model, guided_model):
    models = {"tiny": model, "same": model, "guided": guided_model}
    service = Service(models, max_pixels=10_000, waiting=2)
    yield service
    service.worker.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("pages")


@pytest.fixture(scope="module")
def app(service, folder):
    return make_app(service, folder, hosts=("127.0.0.1",), max_bytes=200_000)


@pytest.fixture(scope="module")
def client(app):
    with TestClient(app, base_url=LOCAL) as client:
        yield client


def file(pixels, kind="PNG", **options):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, kind, **options)
    return encoded.getvalue()


def make_request(seed=0):
    """Returns an image, its mask, and the files of a request to inpaint it."""
    picture, mask = make_picture(HEIGHT, WIDTH, seed)
    return picture, mask, {"image": ("a.png", file(picture)), "mask": ("m.png", file(mask))}


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


# Tests of the API.


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "resize", "model": "same"},
        {"strategy": "crop", "dilate": 3, "feather": 2},
    ],
)
def test_api_result_equals_the_inpainters(client, inpainter, options):
    picture, mask, files = make_request()
    expected = inpainter(picture, mask, **{k: v for k, v in options.items() if k != "model"})
    answer = ask(client, files, **options)
    np.testing.assert_array_equal(pixels_of(answer), expected)
    assert answer.headers["content-type"] == "image/png"
    assert answer.headers["content-disposition"].endswith("a_completed.png")


def test_without_mask_transparent_pixels_are_the_hole(client, inpainter):
    picture, mask, _ = make_request()
    alpha = np.where(mask > 0, 0, 200).astype(np.uint8)
    result = pixels_of(ask(client, {"image": ("a.png", file(np.dstack([picture, alpha])))}))
    np.testing.assert_array_equal(result[..., :3], inpainter(picture, mask))
    np.testing.assert_array_equal(result[..., 3], 200)


def test_extension_is_outpainted(client, inpainter):
    picture, _, _ = make_request()
    extended, mask = extend(picture, 6, 3, 0, 2)
    result = pixels_of(ask(client, {"image": ("a.png", file(picture))}, top=6, right=3, left=2))
    np.testing.assert_array_equal(result, inpainter(extended, mask))
    np.testing.assert_array_equal(result[6:, 2:-3], picture)


def test_extension_hole_and_alpha_combine(client, inpainter):
    picture, mask, _ = make_request()
    alpha = np.full((HEIGHT, WIDTH), 200, np.uint8)
    files = {
        "image": ("a.png", file(np.dstack([picture, alpha]))),
        "mask": ("m.png", file(mask)),
    }
    extended, new = extend(picture, 0, 7, 5, 0)
    hole = new[..., 0] | (extend(mask, 0, 7, 5, 0)[0] == 255)
    result = pixels_of(ask(client, files, right=7, bottom=5))
    np.testing.assert_array_equal(result[..., :3], inpainter(extended, hole))
    np.testing.assert_array_equal(result[..., 3], np.where(new[..., 0], 255, 200))


def test_sketch_guides_the_result(client, guided):
    picture, mask, files = make_request()
    sketch = make_picture(HEIGHT, WIDTH, seed=1)[1]
    with_lines = files | {"sketch": ("s.png", file(sketch))}
    result = pixels_of(ask(client, with_lines, model="guided"))
    np.testing.assert_array_equal(result, guided(picture, mask, sketch=sketch))
    without = pixels_of(ask(client, files, model="guided"))
    np.testing.assert_array_equal(without, guided(picture, mask))
    assert (result != without).any()
    # The sketch is empty in the area by which the image is extended.
    extended, new = extend(picture, 8, 0, 0, 7)
    hole = new | (extend(mask, 8, 0, 0, 7)[0] == 255)[..., np.newaxis]
    lines = np.pad(sketch, ((8, 0), (7, 0)))
    result = pixels_of(ask(client, with_lines, model="guided", top=8, left=7))
    np.testing.assert_array_equal(result, guided(extended, hole, sketch=lines))


def test_format_same_keeps_format_and_metadata(client, inpainter):
    _, mask, files = make_request()
    smooth = np.zeros((HEIGHT, WIDTH, 3), np.uint8) + np.arange(WIDTH, dtype=np.uint8)[:, None]
    jpeg = file(smooth, "JPEG", quality=70, dpi=(300, 300))
    picture = pictures.read(pictures.Encoded(jpeg))
    files["image"] = ("photo.jpeg", jpeg)
    answer = ask(client, files, format="same")
    assert answer.headers["content-type"] == "image/jpeg"
    assert answer.headers["content-disposition"].endswith("photo_completed.jpeg")
    expected = pictures.encode("x.jpg", inpainter(picture.pixels, mask), picture)
    assert answer.content == expected


@pytest.mark.parametrize("name", ["photo.png", "photo", "blob"])
def test_own_format_is_that_of_the_content(client, inpainter, name):
    picture, mask, files = make_request()
    files["image"] = (name, file(picture, "JPEG"))
    answer = ask(client, files, format="same")
    assert answer.headers["content-type"] == "image/jpeg", answer.text
    stem = name.partition(".")[0]
    assert answer.headers["content-disposition"].endswith(f"{stem}_completed.jpg")
    like = pictures.read(pictures.Encoded(files["image"][1]))
    expected = pictures.encode("x.jpg", inpainter(like.pixels, mask), like)
    assert answer.content == expected


def test_own_format_is_refused_before_the_work():
    image = pictures.Encoded(file(np.zeros((HEIGHT, WIDTH, 3), np.uint8), "GIF"), "photo.png")
    filler = Filler({}, Limits(), Flags())  # Without a model, nothing can be filled.
    with pytest.raises(UsageError) as refusal:
        jobs.complete_files(filler, image, None, None, Options("tiny"), "same")
    assert (
        str(refusal.value)
        == "photo_completed.gif cannot be written: .gif is not a supported format; use .png."
    )


def test_16_bit_images_stay_16_bit(client, inpainter):
    picture, mask, files = make_request()
    wide = picture.astype(np.uint16) * 257
    whole = pictures.Picture(wide)
    files["image"] = ("a.png", pictures.encode("a.png", wide, whole))
    answer = ask(client, files)
    result = pictures.read(pictures.Encoded(answer.content)).pixels
    np.testing.assert_array_equal(result, inpainter(wide, mask))


def test_models_are_listed(client):
    listed = client.get("/api/models").json()
    assert [model["name"] for model in listed] == ["tiny", "same", "guided"]
    assert [model["guided"] for model in listed] == [False, False, True]
    assert listed[0] | {"name": ""} == {
        "name": "",
        "purpose": None,
        "architecture": "official",
        "working_size": 256,
        "guided": False,
        "license": None,
    }


def test_response_headers_say_how_the_image_was_filled(client):
    picture, mask, files = make_request()
    answer = ask(client, files, model="same", strategy="resize")
    names = ("model", "strategy", "scale")
    assert [answer.headers[f"deepfill-{name}"] for name in names] == ["same", "resize", "1"]
    assert 0 < float(answer.headers["deepfill-seconds"]) < 600
    model = make_model("official")
    small = Service(
        {"wälder": weights.Model(model.variant, model.generator, None, {"image_size": 16})}
    )
    with TestClient(make_api(small), base_url=LOCAL) as other:
        answer = ask(other, files)
    assert answer.headers["deepfill-model"] == "w%C3%A4lder"
    assert answer.headers["deepfill-strategy"] in ("crop", "resize")
    assert float(answer.headers["deepfill-scale"]) == pytest.approx(16 / WIDTH, rel=1e-3)
    small.worker.close()


def test_default_model_is_for_photographs():
    assert trained.names()[0] == trained.DEFAULT == "scenes"
    assert set(trained.PURPOSES) == set(trained.names())
    service = Service(available([]))
    assert list(service.models) == ["scenes", "faces", "guided"]
    assert [service.purpose(name) for name in service.models] == list(trained.PURPOSES.values())
    schema = make_api(service).openapi()["components"]["schemas"]
    assert schema["Body_inpaint"]["properties"]["model"]["default"] == "scenes"
    with gr.Blocks():
        parts = Layout(service)
    assert parts.model.value == "scenes"
    assert parts.model.choices[0] == ("scenes: photographs", "scenes")
    assert "for photographs" in parts.about.value


def test_texts_end_with_one_period(client):
    for name in trained.names():
        text = layout.about(Service(available([name])), name)
        assert text.endswith(".") and ".." not in text
    broken = client.post(
        "/api/inpaint", content=b"--", headers={"content-type": "multipart/form-data"}
    )
    assert ".." not in refused(broken, 400)


def test_openapi_describes_the_api(client):
    described = client.get("/openapi.json").json()
    operations = [x for path in described["paths"].values() for x in path.values()]
    assert [x["operationId"] for x in operations] == ["health", "list_models", "inpaint"]
    post = described["paths"]["/api/inpaint"]["post"]
    assert set(post["responses"]) == {"200", "400", "408", "413", "422", "500", "503"}
    binary = {"type": "string", "format": "binary"}
    completed = post["responses"]["200"]
    assert completed["content"]["image/png"] == {"schema": binary}
    assert all(content["schema"] == binary for content in completed["content"].values())
    answer = ask(client, make_request()[2])
    assert set(map(str.lower, completed["headers"])) <= set(answer.headers)
    body = described["components"]["schemas"]["Body_inpaint"]["properties"]
    for name in ("image", "mask", "sketch"):
        assert binary.items() <= body[name].items() and "contentMediaType" not in body[name]
    assert described["components"]["schemas"]["Model"]["enum"] == ["tiny", "same", "guided"]
    assert "securitySchemes" not in described["components"] and "security" not in post
    assert client.get("/docs").status_code == 404


def test_openapi_describes_the_password(service):
    described = make_api(service, login=True).openapi()
    (scheme,) = described["components"]["securitySchemes"].items()
    assert (
        scheme[0] == "password" and scheme[1]["type"] == "http" and scheme[1]["scheme"] == "basic"
    )
    for path in ("/api/models", "/api/inpaint"):
        (operation,) = described["paths"][path].values()
        assert operation["security"] == [{"password": []}] and "401" in operation["responses"]
    assert "security" not in described["paths"]["/health"]["get"]


def test_health_and_help(client, app):
    protected = guarded_client(app, login=Login("me", "secret"))
    assert protected.get("/health").json() == {"status": "ok"}
    assert protected.get("/help").status_code == 401
    text = client.get("/help").text
    assert all(word in text for word in ("dilate", "feather", "Cancel", "Start over"))


@pytest.mark.parametrize(
    "fields, query, message",
    [
        ({"dilat": "3"}, "", "dilat: there is no such field; did you mean dilate?"),
        ({"zzz": "3"}, "", "zzz: there is no such field; there are image, mask, sketch, model,"),
        ({"dilate": ["3", "4"]}, "", "dilate: the field was sent 2 times; send it once."),
        ({}, "?model=same", "model: parameters of the URL are ignored; send form fields."),
    ],
)
def test_fields_that_would_be_ignored_are_refused(client, fields, query, message):
    answer = client.post(f"/api/inpaint{query}", files=make_request()[2], data=fields)
    assert message in refused(answer, 422)


def test_misspelled_file_field_is_named(client):
    answer = client.post("/api/inpaint", files={"img": ("a.png", file(PICTURE))})
    assert "img: there is no such field; did you mean image?" in refused(answer, 422)


def bomb():
    """Returns a PNG of a few kB that declares 200 megapixels of zeros."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", 20_000, 10_000, 8, 2, 0, 0, 0)
    data = zlib.compress(bytes(10_000_000), 9)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", data) + chunk(b"IEND", b"")


def archive():
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.png", bytes(50_000_000))
    return packed.getvalue()


PICTURE, MASK, _ = make_request()


@pytest.mark.parametrize(
    "changed, fields, status, message",
    [
        ({"image": ("big.png", bomb())}, {}, 422, "big.png has 20000x10000 pixels"),
        ({"mask": ("big.png", bomb())}, {}, 422, "big.png has 20000x10000 pixels"),
        ({"image": ("a.zip", archive())}, {}, 422, "a.zip cannot be read as an image: it is not a"),
        ({"image": ("a.txt", b"hello")}, {}, 422, "a.txt cannot be read as an image: it is not a"),
        ({"image": ("a.png", b"")}, {}, 422, "a.png cannot be read as an image: it is empty"),
        ({"image": ("a.png", file(PICTURE)[:-60])}, {}, 422, "a.png cannot be read as an image"),
        ({"image": ("../../etc/passwd", b"x")}, {}, 422, "passwd cannot be read as an image"),
        ({"mask": ("m.png", file(0 * MASK))}, {}, 422, "m.png has no hole; paint the region"),
        ({"mask": ("m.png", file(0 * MASK + 255))}, {}, 422, "m.png makes the whole image the"),
        ({"mask": ("m.png", file(MASK // 60))}, {}, 422, "if it holds class or instance numb"),
        ({"image": ("a.png", b"")}, {"feather": 3}, 422, "feather=3 must be from 0 to dilate=0"),
        ({}, {"mask_threshold": 1}, 422, "mask_threshold: "),
        ({}, {"mask_orientation": "left"}, 422, "mask_orientation: "),
        ({"mask": ("m.png", file(MASK[:9]))}, {}, 422, "m.png is 56x9, but a.png is 56x40"),
        ({"sketch": ("s.png", file(MASK))}, {}, 422, "This model does not accept a sketch"),
        (
            {"sketch": ("s.png", file(MASK[:9]))},
            {"model": "guided"},
            422,
            "s.png is 56x9, but a.png is 56x40 (width x height); "
            "a sketch must have the size of its image",
        ),
        ({"sketch": ("s.txt", b"x")}, {"model": "guided"}, 422, "s.txt cannot be read as an im"),
        (
            {"image": ("a", file(PICTURE, "GIF"))},
            {"format": "same"},
            422,
            ".gif is not a supported",
        ),
        ({"image": ("a.png", bytes(200_000))}, {}, 413, "larger than the limit of 200,000 bytes"),
        ({}, {"feather": "3", "dilate": "2"}, 422, "feather=3 must be from 0 to dilate=2"),
        ({}, {"dilate": "-1"}, 422, "dilate: Input should be greater than or equal to 0."),
        ({}, {"strategy": "best"}, 422, "strategy: Input should be 'auto', 'original', 'resize'"),
        ({}, {"model": "../tiny"}, 422, "model: Input should be 'tiny', 'same' or 'guided'."),
        ({}, {"top": "9999"}, 422, "The extended image would have 56x10039 pixels"),
    ],
    ids=lambda value: None if isinstance(value, dict) else str(value)[:30],
)
def test_invalid_requests_are_refused(client, changed, fields, status, message):
    assert message in refused(ask(client, make_request()[2] | changed, **fields), status)


def test_requests_without_a_valid_form_are_refused(client):
    assert refused(client.post("/api/inpaint"), 422) == "image: Field required."
    assert refused(client.post("/api/inpaint", content=b"{}"), 422)
    broken = client.post(
        "/api/inpaint", content=b"--", headers={"content-type": "multipart/form-data"}
    )
    assert refused(broken, 400)
    for method, path, allowed in (("GET", "inpaint", "POST"), ("DELETE", "models", "GET")):
        answer = client.request(method, f"/api/{path}")
        assert refused(answer, 405) == "Method not allowed."
        assert answer.headers["allow"] == allowed


def test_chunked_requests_are_limited_in_size(client):
    def chunks():
        for _ in range(30):
            yield bytes(10_000)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    for path in ("/api/inpaint", "/gradio_api/upload"):
        assert "200,000 bytes" in refused(client.post(path, content=chunks(), headers=headers), 413)


def test_full_queue_returns_503(client, service):
    files = make_request()[2]
    with service.queue.slot(), service.queue.slot(), service.queue.slot():
        answer = ask(client, files)
        assert "try again" in refused(answer, 503) and answer.headers["retry-after"] == "10"
        # Without the guard, which checks before the request is received.
        with TestClient(make_api(service), base_url=LOCAL) as unguarded:
            assert refused(ask(unguarded, files), 503) == answer.json()["error"]
    assert ask(client, files).status_code == 200


def test_full_queue_returns_503_before_the_request_is_received(app, service):
    sent = []

    async def receive():
        raise AssertionError

    async def send(message):
        sent.append(message)

    with service.queue.slot(), service.queue.slot(), service.queue.slot():
        asyncio.run(app(SCOPE, receive, send))
    assert sent[0]["status"] == 503


def test_failed_work_returns_500(client, called, uploaded, service, monkeypatch):
    def fail(*arguments):
        raise RunError("The process that fills images ended (exit code -9).")

    called("open_picture", uploaded(file(PICTURE)), session="failed")
    with monkeypatch.context() as patch:
        patch.setattr(service.worker, "run", fail)
        assert "(exit code -9)" in refused(ask(client, make_request()[2]), 500)
        assert "(exit code -9)" in filled(uploaded, called, stroke()[0], *OPTIONS, session="failed")
    assert ask(client, make_request()[2]).status_code == 200
    called("leave", session="failed")


def test_full_folder_returns_503(client, called, uploaded, service, monkeypatch):
    called("open_picture", uploaded(file(PICTURE)), session="full")
    with monkeypatch.context() as patch:
        patch.setattr(service.quota, "_max_bytes", service.quota._stored)
        for path in ("/api/inpaint", "/gradio_api/upload"):
            answer = client.post(path, files=make_request()[2])
            assert "Try again later" in refused(answer, 503) and answer.headers["retry-after"]
        assert client.get("/api/models").status_code == 200
    with monkeypatch.context() as patch:
        patch.setattr(service.quota, "check", lambda: service.quota.hold(10**12))
        assert "no room for more" in filled(uploaded, called, stroke()[0], *OPTIONS, session="full")
    called("leave", session="full")


def test_plain_name_removes_paths_and_control_characters():
    assert plain_name("..\\..\\etc/pass\nwd\0") == "passwd"
    assert plain_name("/") == plain_name(None) == plain_name("\x01") == "picture"
    assert plain_name("x" * 500 + ".png") == "x" * 76 + ".png"


# Tests of the queue.


def test_requests_run_one_at_a_time_and_cancelled_ones_are_skipped(model):
    service, beginning, order = Service({"tiny": model}), threading.Event(), []

    def work(name, stop):
        beginning.set()
        order.append(name)
        if name == "first":
            assert stop.wait(10)
        order.append(name)

    async def run():
        first, second, third = (
            asyncio.ensure_future(service.queue.exclusive(lambda stop, name=name: work(name, stop)))
            for name in ("first", "second", "third")
        )
        await asyncio.to_thread(beginning.wait)
        second.cancel()
        first.cancel()
        await third
        assert first.cancelled() and second.cancelled()

    asyncio.run(run())
    assert order == ["first", "first", "third", "third"]


def test_cancelled_request_stops_before_its_next_window(model):
    picture, mask, _ = make_request()
    filler = Filler({"tiny": model}, Limits(), Flags(stop=True))
    with pytest.raises(CancelledError):
        filler.fill(pictures.Picture(picture), mask[..., np.newaxis] > 0, None, Options("tiny"))


def test_slots_are_released(service):
    for _ in range(2):
        with service.queue.slot(), service.queue.slot(), service.queue.slot():
            with pytest.raises(QueueFullError), service.queue.slot():
                pass


# Tests of the guard.


def guarded_client(app, **options):
    return TestClient(Guard(app.app, app.service, **options), base_url=LOCAL)


def test_password_protects_web_ui_and_api(app):
    client = guarded_client(app, login=Login("me", "sécret: of mine"))
    for path in ("/", "/api/models", "/openapi.json", "/assets/x.js", "/gradio_api/upload", "/no"):
        answer = client.get(path)
        refused(answer, 401)
        assert answer.headers["www-authenticate"].startswith("Basic ")
    assert ask(client, make_request()[2]).status_code == 401
    for wrong in (("me", "secret"), ("you", "sécret: of mine"), ("me", "")):
        assert client.get("/api/models", auth=wrong).status_code == 401
    for header in ("Basic", "Basic ???", "Bearer bWU6", "Basic \xff"):
        headers = {"authorization": header.encode("latin-1")}
        assert client.get("/api/models", headers=headers).status_code == 401
    encoded = {"authorization": b"Basic bWU6c8OpY3JldDogb2YgbWluZQ=="}
    assert client.get("/api/models", headers=encoded).status_code == 200


def test_requests_from_other_origins_and_hosts_are_refused(client):
    assert client.get("/api/models", headers={"origin": LOCAL}).status_code == 200
    for origin in ("http://evil.example", "http://127.0.0.1:1", "null", "http://127.0.0.1.evil"):
        assert refused(client.get("/api/models", headers={"origin": origin}), 403)
    for host in ("evil.example", "127.0.0.1.evil.example", ""):
        assert refused(client.get("/api/models", headers={"host": host}), 421)


@pytest.mark.parametrize(
    "headers, status",
    [
        ({"host": "["}, 421),
        ({"host": "127.0.0.1:port"}, 421),
        ({"host": "127.0.0.1:99999999"}, 421),
        ({"origin": "http://["}, 403),
        ({"origin": "http://[::1]:x"}, 403),
        ({"origin": "\xff"}, 403),
    ],
)
def test_malformed_hosts_and_origins_are_refused(app, headers, status):
    client = guarded_client(app, hosts=("127.0.0.1",), login=Login("me", "secret"))
    headers = {name: value.encode("latin-1") for name, value in headers.items()}
    assert "--allow-host" not in refused(client.get("/api/models", headers=headers), status)


def test_proxies_are_allowed_by_name(app):
    client = guarded_client(app, hosts=("127.0.0.1",))
    proxied = {"host": "images.example", "origin": "https://images.example"}
    assert refused(client.get("/api/models", headers=proxied), 421) == (
        "The Host header 'images.example' does not name this server. If images.example is a "
        "proxy, start the server with --allow-host images.example."
    )
    del proxied["host"]  # A proxy that does not pass the header on.
    assert refused(client.get("/api/models", headers=proxied), 403) == (
        "Requests from another origin, 'https://images.example', are not allowed. If "
        "images.example is a proxy, start the server with --allow-host images.example."
    )
    client = guarded_client(app, hosts=("127.0.0.1",), proxies=("images.example",))
    for headers in (proxied, proxied | {"host": "images.example:443"}, {}):
        assert client.get("/api/models", headers=headers).status_code == 200
    for headers in ({"host": "evil.example"}, {"origin": "https://evil.example"}):
        assert client.get("/api/models", headers=headers).status_code in (403, 421)


def test_web_ui_and_api_work_below_a_path(model, tmp_path, app, monkeypatch):
    monkeypatch.setenv("GRADIO_TEMP_DIR", os.environ["GRADIO_TEMP_DIR"])  # Each application's own.
    app = make_app(Service({"tiny": model}), tmp_path, root_path="/deepfill")
    with TestClient(app, base_url=LOCAL) as client:
        for prefix in ("/deepfill", ""):  # Proxies pass the path on, or remove it.
            assert client.get(f"{prefix}/api/models").json()[0]["name"] == "tiny"
            page = client.get(f"{prefix}/").text
            assert f'"root":"{LOCAL}/deepfill"' in page
            config = client.get(f"{prefix}/config").json()
            assert config["root"] == f"{LOCAL}/deepfill"
            upload = client.post(
                f"{prefix}/gradio_api/upload", files={"files": ("a.png", file(PICTURE))}
            )
            assert upload.status_code == 200
        assert client.get("/deepfill").status_code == 200
        assert client.get("/deepfillx/api/models").status_code == 404
        assert client.get("/openapi.json").json()["servers"] == [{"url": "/deepfill"}]


def test_allowed_hosts_of_the_command():
    for host in ("127.0.0.1", "127.0.0.2", "::1", "localhost", "192.168.1.5", "Machine"):
        assert hosts.allowed(host, ()) == {*hosts.LOOPBACK, host.lower()}
    for host in ("0.0.0.0", "::", ""):
        assert hosts.allowed(host, ()) == set()
        assert "localhost" in hosts.allowed(host, ("images.example",))
    options = command._parse(["--allow-host", "A.example", "--root-path", "/deepfill/"])
    assert (options.allow_host, options.root_path) == (["a.example"], "/deepfill")


def test_names_below_a_domain_are_matched():
    patterns = ("one.example", ".two.example")
    for name in ("one.example", "two.example", "a.two.example", "b.a.two.example"):
        assert hosts.matches(name, patterns)
    for name in ("a.one.example", "atwo.example", "two.example.evil", "", ".", None):
        assert not hosts.matches(name, patterns)


def test_health_needs_neither_login_nor_host(app):
    client = guarded_client(app, login=Login("me", "secret"), hosts=("127.0.0.1",))
    for headers in ({"host": "10.0.0.7:7860"}, {"host": "["}):
        assert client.get("/health", headers=headers).json() == {"status": "ok"}


def test_errors_of_gradio_and_of_faults_are_json(client, app, monkeypatch):
    assert refused(client.get("/static/none"), 404) == "Not Found."
    assert refused(client.delete("/gradio_api/upload"), 405) == "Method Not Allowed."
    assert refused(client.post("/gradio_api/queue/join", json=[]), 422).startswith("Unprocessable")
    monkeypatch.setattr(app.service, "purpose", None)
    faulty = TestClient(app, base_url=LOCAL, raise_server_exceptions=False)
    assert refused(faulty.get("/api/models"), 500) == (
        "The server failed; its terminal shows the error."
    )


@pytest.mark.parametrize(
    "argument, value",
    [
        ("--allow-host", "https://a.example"),
        ("--allow-host", "a.example:80"),
        ("--allow-host", "*.example"),
        ("--allow-host", "."),
        ("--root-path", "deepfill"),
        ("--root-path", "/a b"),
    ],
)
def test_wrong_hosts_and_paths_are_refused(capsys, argument, value):
    code, _, error = ended(capsys, argument, value)
    assert code == 2 and repr(value) in error


@pytest.mark.parametrize(
    "path",
    [
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=/proc/self/environ",
        f"/gradio_api/file={Path(__file__)}",
        f"/gradio_api/file=/{Path(__file__)}",
        "/gradio_api/file=../../../../etc/passwd",
        "/gradio_api/file=http://127.0.0.1/api/models",
        "/gradio_api/proxy=http://127.0.0.1/api/models",
        "/gradio_api/file/etc/passwd",
        "/static/../../../../../../../../etc/passwd",
        "/static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/assets//etc/passwd",
        "/gradio_api/vibe-code",
        "/gradio_api/runs",
        "/gradio_api/component_server",
        "/monitoring",
        "/docs",
    ],
)
def test_files_of_the_machine_and_unused_routes_are_not_served(client, path):
    answer = client.get(path)
    assert answer.status_code in (403, 404)
    assert "root:" not in answer.text and "import " not in answer.text


SCOPE = {
    "type": "http",
    "method": "POST",
    "path": "/api/inpaint",
    "raw_path": b"/api/inpaint",
    "root_path": "",
    "query_string": b"",
    "headers": [(b"host", b"127.0.0.1"), (b"content-type", b"multipart/form-data; boundary=x")],
}


def test_slow_upload_returns_408(app, monkeypatch):
    monkeypatch.setattr(exchange, "START_SECONDS", 0.05)
    sent = []

    async def receive():
        await asyncio.sleep(10)

    async def send(message):
        sent.append(message)

    asyncio.run(app(SCOPE, receive, send))
    assert sent[0]["status"] == 408


def test_requests_that_are_being_received_take_no_slot(app, client, service):
    """Clients that send a head and no body must not keep others from the queue."""

    async def run():
        body = asyncio.Event()

        async def receive():
            await body.wait()
            return {"type": "http.disconnect"}

        async def send(message):
            pass

        waiting = [asyncio.ensure_future(app(SCOPE, receive, send)) for _ in range(9)]
        await asyncio.sleep(0.1)
        with service.queue.slot(), service.queue.slot(), service.queue.slot():
            pass
        body.set()
        await asyncio.wait(waiting)

    asyncio.run(run())


# Tests of the web UI.


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
        return completed["output"].get("error") or completed["output"]["data"]

    return call


def stroke(*, height=HEIGHT, width=WIDTH):
    """Returns a layer of the editor with a painted hole, and the hole."""
    layer = np.zeros((height, width, 4), np.uint8)
    layer[height // 4 : height // 2, width // 4 : width // 2] = (*painting.HOLE, 153)
    return file(layer), layer[..., 3] > 0


def filled(uploaded, called, layer, *options, session="me"):
    painted = uploaded(layer, "layer.png")
    editor = {"background": None, "layers": [painted], "composite": None}
    changes = called("fill", editor, *options, session=session)
    return changes


OPTIONS = ("tiny", "auto", 0, 0, 0, 0, 0, 0)


def test_painted_hole_is_filled_at_the_images_full_size(
    client, uploaded, called, inpainter, folder
):
    large, _ = make_picture(*LARGE)
    called("open_picture", uploaded(file(large), "../x <b>.png"))
    layer, hole = stroke()
    *_, download, own, status = filled(uploaded, called, layer, *OPTIONS)
    result = client.get(f"/gradio_api/file={download['path']}")
    expected = inpainter(large, pictures.resize_mask(hole[..., np.newaxis], *LARGE))
    np.testing.assert_array_equal(pixels_of(result), expected)
    assert download["orig_name"].endswith("_completed.png") and not own["visible"]
    assert status.startswith("63x47 pixels, original, ")
    # The result becomes the next input.
    called("again")
    *_, download, _, _ = filled(uploaded, called, layer, *OPTIONS[:-1], 1)
    extended, new = extend(expected, 0, 0, 0, 1)
    mask = new | extend(pictures.resize_mask(hole[..., np.newaxis], *LARGE), 0, 0, 0, 1)[0]
    result = client.get(f"/gradio_api/file={download['path']}")
    np.testing.assert_array_equal(pixels_of(result), inpainter(extended, mask))
    # Files that are no longer in use are deleted, and the rest when the session ends.
    session = Path(download["path"]).parents[1]
    assert session.parent == folder
    # The files are the input, its preview, the result and its mask, and previews before and after.
    assert len([x for x in session.rglob("*") if x.is_file()]) == 6
    called("leave")
    assert not session.exists()
    assert client.get(f"/gradio_api/file={download['path']}").status_code in (403, 404)


def layer_of(shares, height=HEIGHT, width=WIDTH):
    """Returns a layer with strokes painted one after the other, blended as a browser does.

    Args:
        shares: Pairs of a colour and the coverage of each pixel by a stroke, [H, W] in [0, 1].
    """
    layer = np.zeros((height, width, 4))
    for colour, covered in shares:
        alpha = covered[..., np.newaxis] * painting.OPACITY
        layer = layer * (1 - alpha) + alpha * np.array([*np.divide(colour, 255), 1.0])
        layer = np.rint(layer * 255) / 255  # 8 bits, premultiplied by opacity.
    opacity = layer[..., 3:]
    colours = np.divide(
        layer[..., :3], opacity, out=np.zeros_like(layer[..., :3]), where=opacity > 0
    )
    return file(np.rint(255 * np.concatenate([colours, opacity], axis=2)).astype(np.uint8))


def disc(row, column, radius):
    """Returns the coverage of a disc with antialiased edges."""
    y, x = np.indices((HEIGHT, WIDTH))
    return np.clip(radius - np.hypot(y - row, x - column) + 0.5, 0, 1)


def test_hole_and_sketch_are_distinguished_by_colour():
    red, on_it, across, apart = disc(20, 15, 12), disc(20, 13, 4), disc(20, 27, 5), disc(20, 48, 6)
    none = np.zeros((HEIGHT, WIDTH))
    painted = painting.painted(layer_of([(painting.HOLE, red)]))
    np.testing.assert_array_equal(painted, [red[..., np.newaxis] > 0, none[..., np.newaxis]])
    layer = layer_of([(painting.HOLE, red), *((painting.LINE, x) for x in (on_it, across, apart))])
    hole, lines = (x[..., 0] for x in painting.painted(layer))
    # A line that touches red belongs to the hole as well; a line apart from it does not.
    np.testing.assert_array_equal(hole, (red > 0) | (across > 0))
    sure = sum(x == 1 for x in (on_it, across, apart)) > 0
    maybe = sum(x > 0 for x in (on_it, across, apart)) > 0
    assert lines[sure].all() and not lines[~maybe].any()
    np.testing.assert_array_equal(lines[:, 42:], apart[:, 42:] > 0)
    # The stroke painted last counts.
    hole, lines = painting.painted(layer_of([(painting.LINE, on_it), (painting.HOLE, red)]))
    np.testing.assert_array_equal(hole[..., 0], red > 0)
    assert not lines.any()


@pytest.mark.parametrize("name", ["guided", "tiny"])
def test_painted_sketch_is_used_by_guided_models_only(
    client, uploaded, called, guided, inpainter, name
):
    large, large_mask = make_picture(*LARGE)
    called("open_picture", uploaded(file(large)), session="lines")
    called("open_mask", uploaded(file(large_mask), "m.png"), session="lines")
    title, about, editor = called("take_model", name, session="lines")
    assert ("blue" in title) == (len(editor["brush"]["colors"]) == 2) == (name == "guided")
    assert f"**{name}**" in about
    red, blue = disc(20, 15, 12), disc(20, 27, 5)
    layer = layer_of([(painting.HOLE, red), (painting.LINE, blue)])
    *_, download, _, status = filled(uploaded, called, layer, name, *OPTIONS[1:], session="lines")
    hole, lines = (pictures.resize_mask(x, *LARGE) for x in painting.painted(layer))
    hole |= large_mask[..., np.newaxis] > 0
    if name == "guided":
        expected = guided(large, hole, sketch=lines)
        assert (expected != guided(large, hole)).any()
    else:
        expected = inpainter(large, hole)
    result = client.get(f"/gradio_api/file={download['path']}")
    np.testing.assert_array_equal(pixels_of(result), expected)
    assert ("sketch was ignored" in status) == (name == "tiny")
    called("leave", session="lines")


def test_uploaded_mask_is_used_and_format_is_kept(client, uploaded, called, inpainter):
    picture, mask, _ = make_request()
    jpeg = file(picture, "JPEG", quality=60)
    called("open_picture", uploaded(jpeg, "photo.jpg"), session="you")
    empty, _ = np.zeros((HEIGHT, WIDTH, 4), np.uint8), None
    assert "nothing to fill" in filled(uploaded, called, file(empty), *OPTIONS, session="you")
    assert "m.png is 56x9, but photo.jpg is 56x40" in called(
        "open_mask", uploaded(file(mask[:9]), "m.png"), session="you"
    )
    called("open_mask", uploaded(file(mask), "m.png"), session="you")
    changes = filled(uploaded, called, file(empty), *OPTIONS, session="you")
    *_, own, _ = changes
    assert own["label"] == "Download JPEG" and own["visible"]
    read = pictures.read(pictures.Encoded(jpeg))
    expected = pictures.encode("x.jpg", inpainter(read.pixels, mask), read)
    assert client.get(f"/gradio_api/file={own['value']['path']}").content == expected
    called("remove_mask", session="you")
    assert "nothing to fill" in filled(uploaded, called, file(empty), *OPTIONS, session="you")


def test_web_ui_shows_errors_and_keeps_its_state(uploaded, called):
    layer, _ = stroke()
    assert "choose one first" in filled(uploaded, called, layer, *OPTIONS, session="new")
    assert "There is no result yet" in called("again", session="new")
    error = called("open_picture", uploaded(bomb(), "a.png"), session="new")
    assert "20000x10000 pixels" in error
    error = called("open_picture", uploaded(file(PICTURE)[:-60], "<i>.png"), session="new")
    assert "&lt;i&gt;.png cannot be read" in error or "i.png cannot be read" in error
    called("open_picture", uploaded(file(PICTURE)), session="new")
    assert "cannot be read" in filled(uploaded, called, b"no layer", *OPTIONS, session="new")
    assert "has 20000x10000" in filled(uploaded, called, bomb(), *OPTIONS, session="new")
    # The image that was open before an error stays open.
    assert "cannot be read" in called("open_picture", uploaded(b"x", "b.png"), session="new")
    assert filled(uploaded, called, layer, *OPTIONS, session="new")[-1].startswith("56x40 pixels")


def test_fill_before_an_image_is_chosen(client, uploaded, called, capfd):
    components = client.get("/config").json()["components"]
    props = {part["props"].get("elem_id"): part["props"] for part in components}
    assert not props["fill"]["interactive"]
    assert props["status"]["value"] == "Choose an image first."
    assert "choose one first" in called("fill", None, *OPTIONS, session="early")
    assert "choose one first" in called("open_mask", uploaded(file(MASK)), session="early")
    assert capfd.readouterr().err == ""
    opened = called("open_picture", uploaded(file(PICTURE)), session="early")
    assert {"interactive": True, "__type__": "update"} in opened
    called("leave", session="early")


def test_gradio_is_subclassed_not_patched(app):
    assert gr.ImageEditor.preprocess.__module__ == "gradio.components.image_editor"
    get = gradio.processing_utils.async_ssrf_protected_get
    assert get.__module__ == "gradio.processing_utils"
    package = Path(layout.__file__).parents[1]
    assert not list(package.rglob("*.pyi"))  # gradio writes one for a subclass of a component.


def test_mask_is_downloaded_as_deepfill_inpaint_reads_it(client, uploaded, called):
    called("open_picture", uploaded(file(PICTURE), "photo.jpg"), session="mask")
    layer, hole = stroke()
    _, mask, *_ = filled(uploaded, called, layer, *OPTIONS[:2], 3, *OPTIONS[3:], session="mask")
    assert mask["orig_name"] == "photo_mask.png"
    downloaded = client.get(f"/gradio_api/file={mask['path']}")
    np.testing.assert_array_equal(pixels_of(downloaded), np.where(hole, 255, 0))
    called("leave", session="mask")


def test_fills_leave_no_uploads_behind(uploaded, called, folder):
    before = set(folder.iterdir())
    called("open_picture", uploaded(file(PICTURE)), session="tidy")
    for seed in range(2):
        editor = {"layers": [uploaded(stroke()[0], "layer.png")]}
        for number, name in enumerate(("background", "composite")):
            shown, _ = make_picture(HEIGHT, WIDTH, 9 + seed + 2 * number)
            editor[name] = uploaded(file(shown), f"{name}.png")
        *_, status = called("fill", editor, *OPTIONS, session="tidy")
        assert status.startswith("56x40 pixels")
    (session,) = {x for x in folder.iterdir() if x.is_dir()} - before
    called("leave", session="tidy")
    assert not session.exists()


def test_start_over_removes_image_and_result(uploaded, called, folder):
    called("open_picture", uploaded(file(PICTURE)), session="over")
    layer, _ = stroke()
    *_, download, _, _ = filled(uploaded, called, layer, *OPTIONS, session="over")
    session = Path(download["path"]).parents[1]
    updates = called("start_over", session="over")
    assert not [x for x in session.rglob("*") if x.is_file()]
    assert "Choose an image first." in updates
    assert {"interactive": False, "__type__": "update"} in updates
    assert "choose one first" in filled(uploaded, called, layer, *OPTIONS, session="over")
    called("leave", session="over")


def test_cancel_ends_the_running_request(client, uploaded, called, service, monkeypatch):
    dependencies = client.get("/config").json()["dependencies"]
    functions = {function["api_name"]: function["id"] for function in dependencies}
    begun = threading.Event()

    def slow(stop, *arguments):
        begun.set()
        assert stop.wait(30)
        raise CancelledError

    called("open_picture", uploaded(file(PICTURE)), session="slow")
    with monkeypatch.context() as patch, ThreadPoolExecutor(1) as pool:
        patch.setattr(service.worker, "run", slow)
        filling = pool.submit(filled, uploaded, called, stroke()[0], *OPTIONS, session="slow")
        assert begun.wait(30)
        body = {"data": [], "fn_index": functions["cancel"], "session_hash": "slow"}
        assert client.post("/gradio_api/queue/join", json=body).status_code == 200
        assert "The request was cancelled." in str(filling.result(30))
    assert filled(uploaded, called, stroke()[0], *OPTIONS, session="slow")[-1]
    called("leave", session="slow")


def test_waiting_users_are_told_what_happens(monkeypatch):
    """The steps: another request, starting, compiling, filling, cancelling."""
    service, begun, end = Service({}), threading.Event(), threading.Event()

    async def run():
        async def said():
            return (await anext(waiting)).partition(" ...")[0]

        first = asyncio.ensure_future(service.queue.exclusive(lambda stop: end.wait(10)))
        await asyncio.sleep(0)

        def work(stop):
            begun.set()
            stop.wait(10)

        second = asyncio.ensure_future(service.queue.exclusive(work))
        waiting = actions._waiting(second, service)
        assert await said() == "Waiting: 1 request before this one"
        end.set()
        await asyncio.to_thread(begun.wait)
        for state, words in (
            ("is_starting", "Starting the process that fills images"),
            ("is_compiling", "Compiling the network for this size, which is done once per size"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(Worker, state, lambda worker: True)
                assert await said() == words
        assert await said() == "Filling"
        asyncio.get_running_loop().call_later(0.1, second.cancel)
        with pytest.raises(CancelledError):
            async for status in waiting:
                assert status.startswith(("Filling", "Cancelling"))
        await first

    asyncio.run(run())


def test_process_says_when_it_compiles(model):
    flags, picture = Flags(), make_picture(24, 24)[0]
    filler, said = Filler({"tiny": model}, Limits(), flags), []

    network = filler._inpainters["tiny"]._network.__class__
    run = network.__call__

    def watched(*arguments):
        said.append(flags.is_compiling)
        return run(*arguments)

    hole = np.zeros((24, 24, 1), bool)
    hole[8:16, 8:16] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "__call__", watched)
        for _ in range(2):
            filler.fill(pictures.Picture(picture), hole, None, Options("tiny"))
    assert said == [True, False] and not flags.is_compiling


def test_status_says_size_scale_and_time():
    words = {
        ("resize", 256 / 1500): "resize, filled at 256 px and enlarged 5.9 times, in 3.2 s.",
        ("crop", 0.5): "crop, filled at 256 px and enlarged up to 2.0 times, in 3.2 s.",
        ("original", 1.0): "original, filled at full size, in 3.2 s.",
    }
    for (strategy, scale), expected in words.items():
        summary = Summary("1500x1000", strategy, scale, 3.21)
        assert layout.summary(summary, 256) == f"1500x1000 pixels, {expected}"


def test_options_are_in_plain_words(client):
    config = client.get("/config").json()
    labels = {part["props"].get("label") for part in config["components"]}
    assert {"Grow the hole (dilate)", "Soften the border (feather)", "Image size"} <= labels
    assert set(layout.STRATEGIES) == set(STRATEGIES)
    (title,) = [x for x in config["components"] if x["props"].get("elem_id") == "title"]
    assert "[Help](help)" in title["props"]["value"]


def test_urls_and_local_paths_of_clients_are_refused(called, monkeypatch):
    for path in ("http://127.0.0.1:9/a.png", "https://example.com/a.png", "/etc/passwd"):
        named = {"path": path, "url": path, "meta": {"_type": "gradio.FileData"}}
        error = called("open_picture", named, session="thief")
        assert isinstance(error, str)
        if path.startswith("http"):
            assert "not fetched" in error


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_previews_show_alpha_and_hole(dtype, channels):
    full = np.iinfo(dtype).max
    pixels = np.full((1400, 2560, channels), full // 2, dtype)
    alpha = np.full((1400, 2560, 1), full, dtype)
    alpha[:700] = 0
    hole = np.zeros((1400, 2560, 1), bool)
    hole[:, :1280] = True
    shown = np.asarray(painting.preview(pictures.Picture(pixels, alpha), hole))
    assert shown.shape == (700, 1280, 3)
    assert (shown[:350, 640:] == 255).all() and (shown[350:, 640:] == 127).all()
    red = shown[350:, :640]
    assert (red[..., 0] > 127).all() and (red[..., 1] < 127).all()


# Tests of the command.


def ended(capsys, *arguments):
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        command.main(list(arguments))
    assert signal.getsignal(signal.SIGTERM) == handler
    return end.value.code, *capsys.readouterr()


def test_invalid_arguments_are_refused(capsys, tmp_path, model, monkeypatch):
    monkeypatch.setattr(trained, "FOLDER", tmp_path / "none")
    weights.save(tmp_path / "a.safetensors", model)
    named = ["--model", f"{tmp_path / 'a.safetensors'}"]
    code, out, err = ended(capsys, "--port", "0")
    assert code == 2 and out == ""
    assert err.endswith("\nerror: There is no bundled model; name a model with --model.\n")
    assert "There is no model file absent" in ended(capsys, "--port", "0", "--model", "absent")[2]
    assert "not from 0 to 65535" in ended(capsys, *named, "--port", "70000")[2]
    import socket

    with socket.create_server(("127.0.0.1", 0)) as busy:
        port = busy.getsockname()[1]
        code, _, err = ended(capsys, *named, "--port", f"{port}")
    assert code == 2
    assert f"Port {port} of 127.0.0.1 is not available: Address already in use" in err


def test_two_models_of_the_same_name_are_refused(tmp_path, model):
    for name in ("x", "y"):
        (tmp_path / name).mkdir()
        weights.save(tmp_path / name / "a.safetensors", model)
    paths = [str(tmp_path / name / "a.safetensors") for name in ("x", "y")]
    with pytest.raises(UsageError, match="Two models have the name a"):
        available(paths)
    assert list(available(paths[:1])) == ["a"]


def test_missing_gradio_is_reported_with_the_extra_to_install():
    code = """
import sys
sys.modules["gradio"] = None
from deepfill_jax.app.__main__ import main
main(["--model", "absent"])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.returncode == 2
    assert ran.stderr.splitlines()[1:] == [
        "error: The web UI needs gradio: pip install 'deepfill_jax[app]'."
    ]


OPENING = """
import json, sys, time
import uvicorn
from deepfill_jax.app import __main__ as command
from deepfill_jax.app.worker import Worker

opened = []
Worker.start = lambda worker: None
command.webbrowser.open = opened.append
uvicorn.Server.run = lambda *_, **__: time.sleep(0.5)  # Until the thread has opened the browser.
for arguments in json.loads(sys.argv[1]):
    command.main(arguments)
    print(json.dumps(opened))
    opened.clear()

import jax
assert jax.config.jax_platforms == "cpu"  # The GPU is for the worker.
"""


def test_command_says_that_it_starts_and_opens_a_browser(tmp_path, model):
    weights.save(tmp_path / "a.safetensors", model)
    common = ["--model", f"{tmp_path / 'a.safetensors'}", "--port", "0"]
    runs = [common, [*common, "--no-browser"], [*common, "--host", "0.0.0.0"]]
    ran = {
        display: subprocess.run(
            [sys.executable, "-c", OPENING, json.dumps(runs)],
            env={**os.environ, "DISPLAY": display, "WAYLAND_DISPLAY": ""},
            capture_output=True,
            text=True,
            timeout=120,
        )
        for display in (":0", "")
    }
    assert ran[":0"].returncode == 0, ran[":0"].stderr
    out, err = ran[":0"].stdout.splitlines(), ran[":0"].stderr.splitlines()
    assert err.count("Starting, which takes some seconds. Press Ctrl+C to stop.") == len(runs)
    assert any("no password is set" in line for line in err)
    assert out[0].startswith("http://127.0.0.1:") and json.loads(out[1]) == [out[0]]
    assert out[3] == out[5] == ran[""].stdout.splitlines()[1] == "[]"


def test_command_says_that_it_starts_before_it_imports_gradio(tmp_path):
    code = """
import sys
class Watch:
    def find_spec(self, name, path=None, target=None):
        if name in ("gradio", "jax"):
            sys.exit(f"imports {name}")
sys.meta_path.insert(0, Watch())
from deepfill_jax.app.__main__ import main
main(["--no-browser"])
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert ran.stderr.splitlines() == [
        "Starting, which takes some seconds. Press Ctrl+C to stop.",
        "imports gradio",
    ]


def test_user_and_password_are_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("DEEPFILL_PASSWORD", "p")
    monkeypatch.setenv("DEEPFILL_USER", "u")
    options = command._parse(["--model", "a", "--model", "b"])
    assert (options.user, options.password, options.model) == ("u", "p", ["a", "b"])
    monkeypatch.delenv("DEEPFILL_PASSWORD")
    assert command._parse([]).password is None
