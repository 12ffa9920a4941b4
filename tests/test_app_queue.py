"""Tests of waiting, cancelled and refused requests."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from app_fixtures import (
    LOCAL,
    OPTIONS,
    PICTURE,
    SCOPE,
    ask,
    file,
    filled,
    make_request,
    refused,
    stroke,
)
from fastapi.testclient import TestClient
from made import make_picture

from deepfill_jax import pictures
from deepfill_jax.app.api import make_api
from deepfill_jax.app.filling import Filler, Options
from deepfill_jax.app.queue import CancelledError, QueueFullError
from deepfill_jax.app.service import Service
from deepfill_jax.app.shared_flags import Flags
from deepfill_jax.app.waiting import waiting as wait_and_say
from deepfill_jax.app.work_limits import Limits
from deepfill_jax.app.worker import Worker

pytest_plugins = ["app_fixtures"]


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
        waiting = wait_and_say(second, service)
        assert await said() == "Waiting: 1 request before this one"
        end.set()
        await asyncio.to_thread(begun.wait)
        for state, value, words in (
            ("is_starting", True, "Starting the process that fills images"),
            ("compiling", (1, 320, 512), "Compiling for 512x320, once per size"),
        ):
            with monkeypatch.context() as patch:
                patch.setattr(Worker, state, lambda worker, value=value: value)
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

    def watched(*arguments, **options):
        said.append(list(flags.compiling))
        return run(*arguments, **options)

    hole = np.zeros((24, 24, 1), bool)
    hole[8:16, 8:16] = True
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(network, "__call__", watched)
        for _ in range(2):
            filler.fill(pictures.Picture(picture), hole, None, Options("tiny"))
    assert said == [[1, 24, 24], [0, 0, 0]] and not any(flags.compiling)
