"""Tests of a running server with many simultaneous clients and clients that disconnect."""

import io
import socket
import time
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest
from made import make_model, make_picture
from PIL import Image
from server import request_of, serve

from deepfill_jax.inpaint.inpainter import Inpainter

pytestmark = pytest.mark.slow

CLIENTS = 20
MAX_MORE_BYTES = 600_000_000  # Limit of the additional peak memory compared with one client.


@pytest.fixture(scope="module")
def inpainter():
    return Inpainter(make_model("official"))


def file(pixels):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def ask(url, picture, mask, **fields):
    files = {"image": ("a.png", file(picture)), "mask": ("m.png", file(mask))}
    return httpx.post(f"{url}/api/inpaint", files=files, data=fields, timeout=300)


def pixels_of(answer):
    assert answer.status_code == 200, answer.text
    with Image.open(io.BytesIO(answer.content)) as picture:
        return np.asarray(picture)


def eventually(holds):
    deadline = time.monotonic() + 60
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_twenty_clients_at_once(tmp_path, inpainter):
    pictures = [make_picture(300 + 7 * i, 420 - 5 * i, i) for i in range(CLIENTS)]
    with (
        serve(tmp_path, "--max-queue", f"{CLIENTS}") as server,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        np.testing.assert_array_equal(
            pixels_of(ask(server.url, *pictures[0])), inpainter(*pictures[0])
        )
        before = server.peak_bytes()
        answers = list(pool.map(lambda pair: ask(server.url, *pair), pictures))
        for pair, answer in zip(pictures, answers, strict=True):
            np.testing.assert_array_equal(pixels_of(answer), inpainter(*pair))
        assert server.peak_bytes() < before + MAX_MORE_BYTES
        eventually(lambda: not server.open_uploads())
        assert not server.temporary_files()


def test_requests_beyond_the_queue_get_503(tmp_path, inpainter):
    pictures = [make_picture(500, 500, i) for i in range(8)]
    with serve(tmp_path, "--max-queue", "2") as server, ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda pair: ask(server.url, *pair), pictures))
        statuses = [answer.status_code for answer in answers]
        assert set(statuses) == {200, 503} and statuses.count(200) >= 3
        for pair, answer in zip(pictures, answers, strict=True):
            if answer.status_code == 200:
                np.testing.assert_array_equal(pixels_of(answer), inpainter(*pair))


def test_disconnected_clients_do_not_block_the_server(tmp_path, inpainter):
    picture, mask = make_picture(60, 70)
    large, scattered = make_picture(2000, 2000)
    with serve(tmp_path, "--max-queue", "1") as server:
        # Clients disconnect during the upload, more of them than there are slots.
        whole, address = request_of(server, file(large), file(scattered))
        for length in (300, 30_000, len(whole) - 1):
            for _ in range(3):
                with socket.create_connection(address) as client:
                    client.sendall(whole[:length])
                eventually(lambda: not server.open_uploads())
        # Clients disconnect while their request waits or is processed.
        for _ in range(6):
            with socket.create_connection(address) as client:
                client.sendall(whole)
                time.sleep(0.3)
        eventually(lambda: ask(server.url, picture, mask).status_code == 200)
        np.testing.assert_array_equal(
            pixels_of(ask(server.url, picture, mask)), inpainter(picture, mask)
        )
        eventually(lambda: not server.open_uploads())
        assert not server.temporary_files()
