"""Tests of connections with clients that send or read slowly, or that send invalid HTTP."""

import asyncio
import contextlib
import json
import socket
import threading
import time

import pytest
import uvicorn

from deepfill_jax.app import exchange, protocol
from deepfill_jax.app.exchange import Exchange, RefusalError
from deepfill_jax.app.quota import Quota


async def application(scope, receive, send):
    """Answers with the number of bytes of the body, or with as many bytes as the path says."""
    if scope["type"] != "http":
        return
    body, more = b"", True
    while more:
        message = await receive()
        assert message["type"] == "http.request"
        body, more = body + message["body"], message["more_body"]
    asked = scope["path"].strip("/")
    status = 404 if asked == "absent" else 200
    answer = bytes(int(asked)) if asked.isdecimal() else b"%d" % len(body)
    headers = [(b"content-length", b"%d" % len(answer))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


@contextlib.contextmanager
def served(app=application):
    """Runs an application in a thread, and yields its address and the server."""
    listening = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, http=protocol.Protocol, log_level="critical", lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield listening.getsockname(), server
    finally:
        server.should_exit = server.force_exit = True
        thread.join()


async def limited(scope, receive, send):
    """Runs the application with the limits of exchanges."""
    try:
        await Exchange(receive, send, 10**9, Quota(10**9)).run(application, scope)
    except RefusalError as refusal:
        await refusal.response(scope, receive, send)


def connect(address, sent=b"", **options):
    client = socket.socket()
    for name, value in options.items():
        client.setsockopt(socket.SOL_SOCKET, getattr(socket, name), value)
    client.settimeout(20)
    client.connect(address)
    client.sendall(sent)
    return client


def read_all(client):
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while piece := client.recv(100_000):
            received += piece
    return received


def head(path="/", *headers, method="GET"):
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: x", *headers, "", ""]).encode()


def error_of(answer):
    headers, _, body = answer.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in headers.lower()
    return int(headers.split()[1]), json.loads(body)["error"]


CLOSE = "Connection: close"


def test_connections_without_a_request_are_closed(monkeypatch):
    monkeypatch.setattr(protocol, "HEAD_SECONDS", 0.3)
    with served() as (address, _):
        began = time.monotonic()
        assert read_all(connect(address)) == b""
        assert error_of(read_all(connect(address, b"GET / HTTP/1.1\r\nHost:")))[0] == 408
        # The second request of a connection has the same limit, and bytes do not extend it.
        client = connect(address, head())
        assert client.recv(1000).startswith(b"HTTP/1.1 200")
        client.sendall(b"GET / HTT")
        assert error_of(read_all(client)) == (
            408,
            "The request's head timed out; send the request again.",
        )
        assert 0.3 < time.monotonic() - began < 10


def test_silent_connections_make_room_for_others(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    with served() as (address, server):
        silent = [connect(address) for _ in range(8)]
        for _ in range(2):
            assert read_all(connect(address, head("/", CLOSE))).endswith(b"0")
        assert len(server.server_state.connections) <= 3
        closed = [client for client in silent[:5] if not read_all(client)]
        assert len(closed) == 5  # The oldest.


def until(holds):
    deadline = time.monotonic() + 10
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_connections_without_a_body_make_room_for_others(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 3)
    with served() as (address, server):
        began = []
        for count in (1, 2, 3):
            began.append(connect(address, head("/", "Content-Length: 2", CLOSE, method="POST")))
            until(lambda count=count: len(server.server_state.tasks) == count)
        assert read_all(connect(address, head("/", CLOSE))).endswith(b"0")
        for client in began[1:]:
            client.sendall(b"ab")
            assert read_all(client).endswith(b"2")
        assert read_all(began[0]) == b""  # The oldest.


def test_connections_beyond_the_limit_get_503_while_all_requests_are_processed(monkeypatch):
    monkeypatch.setattr(protocol, "MAX_CONNECTIONS", 2)
    end = threading.Event()

    async def slow(scope, receive, send):
        while not end.is_set():
            await asyncio.sleep(0.02)
        await application(scope, receive, send)

    with served(slow) as (address, server):
        busy = [connect(address, head("/", CLOSE)) for _ in range(2)]
        until(lambda: len(server.server_state.tasks) == 2)
        assert error_of(read_all(connect(address))) == (
            503,
            "Too many connections are open; try again later.",
        )
        end.set()
        assert all(read_all(client).startswith(b"HTTP/1.1 200") for client in busy)


@pytest.mark.parametrize("headers", [(), ("Connection: close",)])
@pytest.mark.parametrize("size", [30_000_000, 300_000])
def test_responses_that_are_not_read_are_dropped(monkeypatch, size, headers):
    """Those of which the rest fits in the buffer as well: the application has sent all of it."""
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.3)
    sending = socket.create_server
    monkeypatch.setattr(socket, "create_server", lambda *x: small_buffer(sending(*x)))
    with served(limited) as (address, server):
        client = connect(address, head(f"/{size}", *headers), SO_RCVBUF=4096)
        until(lambda: server.server_state.connections)
        (connection,) = server.server_state.connections
        assert connection.transport.get_write_buffer_size() < 300_000
        until(lambda: not server.server_state.connections)
        client.close()
        assert len(read_all(connect(address, head("/3000000", CLOSE)))) > 3_000_000


def small_buffer(listening):
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return listening


def test_responses_that_are_read_too_slowly_are_dropped(monkeypatch):
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.3)
    monkeypatch.setattr(protocol, "MIN_BYTES_PER_SECOND", 10_000_000)
    with served(limited) as (address, server):
        client, received = connect(address, head("/30000000"), SO_RCVBUF=4096), []

        def is_dropped():
            with contextlib.suppress(OSError):
                received.append(len(client.recv(20_000)))
            return not server.server_state.connections

        until(is_dropped)
        assert 0 < sum(received) < 30_000_000


def test_responses_that_are_read_slowly_but_steadily_are_sent(monkeypatch):
    """The time for reading counts the pauses and not the whole response."""
    monkeypatch.setattr(protocol, "READ_SECONDS", 0.5)
    monkeypatch.setattr(protocol, "MIN_BYTES_PER_SECOND", 100_000)
    with served(limited) as (address, _):
        client, received = connect(address, head("/6000000", CLOSE), SO_RCVBUF=65_536), 0
        began = time.monotonic()
        while piece := client.recv(60_000):
            received += len(piece)
            time.sleep(0.01)
        assert received > 6_000_000 and time.monotonic() - began > 1


@pytest.mark.parametrize("pause", [0.05, 10])
def test_slow_bodies_are_refused(monkeypatch, pause):
    """Bytes that come one by one do not extend the time."""
    monkeypatch.setattr(exchange, "START_SECONDS", 0.5)
    with served(limited) as (address, _):
        client = connect(address, head("/", "Content-Length: 1000", method="POST"))
        client.settimeout(pause)
        began, answer = time.monotonic(), b""
        while not answer:
            with contextlib.suppress(TimeoutError):
                answer = client.recv(1000)
            with contextlib.suppress(OSError):
                client.sendall(b"x")
        assert error_of(answer) == (408, "The upload timed out; send the request again.")
        assert time.monotonic() - began < 5


def test_slow_bodies_that_progress_are_received(monkeypatch):
    monkeypatch.setattr(exchange, "START_SECONDS", 0.5)
    monkeypatch.setattr(exchange, "MIN_BYTES_PER_SECOND", 1000)
    with served(limited) as (address, _):
        client = connect(address, head("/", "Content-Length: 2000", CLOSE, method="POST"))
        for _ in range(20):
            client.sendall(bytes(100))
            time.sleep(0.06)
        assert read_all(client).endswith(b"2000")


def test_every_error_is_json():
    with served(limited) as (address, _):
        assert error_of(read_all(connect(address, b"NONSENSE\r\n\r\n")))[0] == 400
        chunked = head("/", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n"
        assert error_of(read_all(connect(address, chunked)))[0] == 400
        assert error_of(read_all(connect(address, head("/absent", CLOSE)))) == (404, "Not Found.")


@pytest.mark.parametrize(
    "body, reason",
    [
        (b'{"error": "Wrong."}', "Wrong."),
        (b'{"detail": "Not Found"}', "Not Found."),
        (b'{"detail": [{"loc": []}]}', "Unprocessable Content."),
        (b"plain text", "plain text."),
        (b"[]", "Unprocessable Content."),
        (b"", "Unprocessable Content."),
    ],
)
def test_errors_of_all_parts_become_one_kind(body, reason):
    sent = []

    async def app(scope, receive, send):
        headers = [(b"content-type", b"text/plain"), (b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 422, "headers": headers})
        await send({"type": "http.response.body", "body": body[:3], "more_body": True})
        await send({"type": "http.response.body", "body": body[3:]})

    async def run():
        async def send(message):
            sent.append(message)

        await Exchange(None, send, 0, Quota(0)).run(app, {"path": "/"})

    asyncio.run(run())
    (_, answer), headers = sent, dict(sent[0]["headers"])
    assert json.loads(answer["body"])["error"].replace("Entity", "Content") == reason
    assert headers[b"content-type"] == b"application/json"
    assert int(headers[b"content-length"]) == len(answer["body"])


def test_statuses_without_a_name_are_sent():
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 499, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message):
        sent.append(message)

    async def run():
        await Exchange(None, send, 0, Quota(0)).run(app, {"path": "/"})

    asyncio.run(run())
    assert sent[0]["status"] == 499 and json.loads(sent[1]["body"]) == {"error": "Failed."}
