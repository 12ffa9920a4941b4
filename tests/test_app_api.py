"""Tests of inpainting requests to the HTTP API."""

import io

import numpy as np
import pytest
from app_fixtures import (
    HEIGHT,
    MASK,
    OPTIONS,
    PICTURE,
    WIDTH,
    ask,
    bomb,
    file,
    filled,
    make_request,
    pixels_of,
    refused,
    stroke,
)
from made import make_picture

from deepfill_jax import pictures
from deepfill_jax.app import jobs
from deepfill_jax.app.filling import Filler, Options
from deepfill_jax.app.reading import plain_name
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.inpaint.canvas import extend

pytest_plugins = ["app_fixtures"]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"strategy": "resize", "model": "same"},
        {"strategy": "crop", "dilate": 3, "feather": 2, "check_mask": False},
        {"strategy": "crop", "detail": False, "seamless": False},
        {"budget": 1e-3},
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


def archive():
    import zipfile

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as zipped:
        zipped.writestr("a.png", bytes(50_000_000))
    return packed.getvalue()


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
        ({}, {"budget": "0"}, 422, "budget: Input should be greater than 0"),
        ({}, {"budget": "8", "strategy": "crop"}, 422, "budget=8 has no effect with strategy="),
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
