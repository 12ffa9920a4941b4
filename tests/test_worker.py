"""Tests of the process that does the work of the web UI's server."""

import asyncio
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time

import httpx
import numpy as np
import pytest
from made import make_model, make_picture
from PIL import Image
from server import request_of, serve

from deepfill_jax.app.filling import Filler, Options
from deepfill_jax.app.queue import CancelledError, Queue, QueueFullError
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.app.worker import Worker
from deepfill_jax.errors import RunError, UsageError
from deepfill_jax.inpaint.inpainter import Inpainter
from deepfill_jax.pictures import Picture


@pytest.fixture(scope="module")
def worker():
    worker = Worker({"tiny": make_model("official")}, Limits(max_pixels=1234))
    yield worker
    worker.close()


def never():
    return threading.Event()


# Jobs, which the process imports from this file.


def double(filler, number):
    return 2 * number


def sleep(filler, seconds):
    time.sleep(seconds)


def fail(filler, error):
    raise error


def end(filler, code):
    os._exit(code)


def process_id(filler):
    return os.getpid(), "gradio" in sys.modules


def fill(filler, picture, hole):
    return filler.fill(picture, hole, None, Options("tiny")).pixels, filler.limits


def test_results_and_errors_come_back(worker):
    assert worker.run(never(), double, number=4) == 8
    image, mask = make_picture(20, 30)
    hole = mask[..., np.newaxis] > 0
    pixels, limits = worker.run(never(), fill, Picture(image), hole)
    np.testing.assert_array_equal(pixels, Inpainter(make_model("official"))(image, mask))
    assert limits.max_pixels == 1234
    with pytest.raises(UsageError, match="of the user"):
        worker.run(never(), fail, UsageError("An error of the user."))
    with pytest.raises(RunError, match="The request failed: MemoryError: too much"):
        worker.run(never(), fail, MemoryError("too much"))
    process, has_gradio = worker.run(never(), process_id)
    assert process != os.getpid() and not has_gradio


def test_stopped_job_ends_within_a_second(worker):
    worker.run(never(), double, 1)  # The process runs.
    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    began = time.monotonic()
    with pytest.raises(CancelledError):
        worker.run(stop, sleep, 300)  # Like a compiled program, it cannot be interrupted.
    assert time.monotonic() - began < 1.2
    assert worker.is_starting()
    with pytest.raises(CancelledError):  # The start of the next process does not delay a stop.
        worker.run(stop, double, 1)
    assert time.monotonic() - began < 2
    assert worker.run(never(), double, 1) == 2 and not worker.is_starting()


def test_stopped_job_that_reaches_a_window_keeps_the_process(worker):
    process = worker.run(never(), process_id)
    stop = threading.Event()
    threading.Timer(0.1, stop.set).start()
    with pytest.raises(CancelledError):
        worker.run(stop, sleep, 0.3)
    assert worker.run(never(), process_id) == process


def test_process_that_ends_is_reported_and_replaced(worker):
    with pytest.raises(RunError, match=r"ended \(exit code 3\), perhaps because it ran out of mem"):
        worker.run(never(), end, 3)
    process, _ = worker.run(never(), process_id)
    os.kill(process, signal.SIGKILL)  # As Linux does when memory runs out, between two jobs.
    os.waitid(os.P_PID, process, os.WEXITED | os.WNOWAIT)  # Waits until it has ended.
    assert worker.run(never(), double, 1) == 2


def test_job_beyond_the_time_limit_is_refused(worker, monkeypatch):
    worker.run(never(), double, 1)
    monkeypatch.setattr(worker, "_max_seconds", 0.2)
    with pytest.raises(UsageError, match="longer than 0.2 s, the limit of this server; mark"):
        worker.run(never(), sleep, 300)


def test_closing_cancels_the_job():
    worker = Worker({}, Limits())
    worker.run(never(), double, 1)
    threading.Timer(0.2, worker.close).start()
    began = time.monotonic()
    for _ in range(2):
        with pytest.raises(CancelledError):
            worker.run(never(), sleep, 300)
    assert time.monotonic() - began < 60  # Each request takes 300 s.


def test_process_ends_with_a_killed_server():
    code = """
import os, signal, threading, time
from test_worker import Limits, Worker, process_id, sleep
worker = Worker({}, Limits())
print(worker.run(threading.Event(), process_id)[0], flush=True)
threading.Thread(target=worker.run, args=(threading.Event(), sleep, 300)).start()
time.sleep(0.3)
os.kill(os.getpid(), signal.SIGKILL)
"""
    ran = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    deadline = time.monotonic() + 30
    while os.path.exists(f"/proc/{int(ran.stdout)}"):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_original_is_refused_above_its_limit():
    filler = Filler({"tiny": make_model("official")}, Limits(max_original_pixels=600), Flags())
    picture, hole = Picture(np.zeros((30, 24, 3), np.uint8)), np.zeros((30, 24, 1), bool)
    hole[8:16, 8:16] = True
    with pytest.raises(UsageError) as refusal:
        filler.fill(picture, hole, None, Options("tiny", "original"))
    assert "24x30 pixels (width x height), more than the limit of 600" in str(refusal.value)
    assert "choose auto, resize or crop, or start the server with" in str(refusal.value)
    assert "--max-original-megapixels" in str(refusal.value)
    assert filler.fill(picture, hole, None, Options("tiny", "auto")).summary.strategy == "original"


def test_requests_learn_their_place_in_the_queue():
    queue, stop_first = Queue(2), threading.Event()

    async def run():
        with queue.slot(), queue.slot(), queue.slot():
            with pytest.raises(QueueFullError, match="full: 3 requests before this one; try again"):
                queue.slot().__enter__()
        first, second, third = (
            asyncio.ensure_future(queue.exclusive(lambda stop: stop_first.wait(10)))
            for _ in range(3)
        )
        await asyncio.sleep(0.05)
        assert list(map(queue.before, (first, second, third))) == [0, 1, 2]
        second.cancel()  # Leaves the queue.
        await asyncio.wait([second])
        assert queue.before(third) == 1
        stop_first.set()
        await asyncio.wait([first, third])
        assert queue.before(third) == 0

    asyncio.run(run())


def png(pixels):
    encoded = io.BytesIO()
    Image.fromarray(pixels).save(encoded, "PNG")
    return encoded.getvalue()


def test_server_ends_the_work_of_clients_that_leave(tmp_path):
    image, mask = np.zeros((900, 1000, 3), np.uint8), np.zeros((900, 1000), np.uint8)
    mask[300:500, 300:500] = 255
    small = {"image": png(image[:40, :40]), "mask": png(mask[280:320, 280:320])}
    with contextlib.ExitStack() as clients:
        with serve(tmp_path, "--max-original-megapixels", "0.9") as server:

            def ask(**files):
                return httpx.post(f"{server.url}/api/inpaint", files=files, timeout=60)

            assert ask(**small).status_code == 200
            (worker,) = server.workers()
            whole, address = request_of(server, png(image), png(mask), strategy="original")
            with socket.create_connection(address) as client:
                client.sendall(whole)
                time.sleep(1.5)
                assert httpx.get(f"{server.url}/health").status_code == 200
            left = time.monotonic()
            while worker in server.workers():
                assert time.monotonic() < left + 15
                time.sleep(0.05)
            assert ask(**small).status_code == 200
            waiting = clients.enter_context(socket.create_connection(address))
            waiting.sendall(whole)
            page = f"{server.url}/gradio_api/heartbeat/abc"  # An open page keeps a connection.
            clients.enter_context(httpx.stream("GET", page))
            time.sleep(1)
            stopped = time.monotonic()
        assert (
            time.monotonic() < stopped + 15
        )  # `serve` stops the server, in the middle of the work.
        assert b"The server is stopping; send the request again later." in waiting.recv(1000)
