"""A server on 127.0.0.1 with files to download, which can misbehave."""

import contextlib
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        server = self.server
        server.requests.append((self.path, self.headers.get("Range")))
        if self.path in server.redirects:
            self.answer(302, {"Location": server.redirects[self.path]})
        elif server.statuses:
            self.answer(server.statuses.pop(0), {})
        elif self.path not in server.files:
            self.answer(404, {"X-Error-Code": "EntryNotFound"})  # As Hugging Face says it.
        else:
            self.send_file(server.files[self.path])

    def answer(self, status, headers, length=0):
        self.send_response(status)
        for name, value in ({"Content-Length": length} | headers).items():
            self.send_header(name, f"{value}")
        self.end_headers()

    def send_file(self, content):
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        if start and self.server.ranges:
            if start >= len(content):
                return self.answer(416, {})
            status, content = 206, content[start:]
        else:
            status = 200
        headers = {"Content-Type": self.server.type} | self.server.headers
        self.answer(status, headers, len(content))
        if self.command == "HEAD":
            return
        sent = self.server.cuts.pop(0) if self.server.cuts else len(content)
        for block in range(0, sent, 2**16):
            self.wfile.write(content[block : min(block + 2**16, sent)])
            time.sleep(self.server.pause)
        if sent < len(content):
            self.close_connection = True


@contextlib.contextmanager
def serving(files):
    """Serves files by path.

    Attributes of the server that tests set: `redirects` by path; `statuses` of the next responses;
    `cuts`, the bytes after which the next responses end; `pause` in seconds after each 64 kB;
    `ranges`, whether parts of files are served; `type`, the content type; further `headers`.
    `requests` lists path and range of each request.
    """
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.files, server.requests, server.redirects = files, [], {}
    server.statuses, server.cuts, server.headers = [], [], {}
    server.pause, server.ranges, server.type = 0, True, "application/octet-stream"
    server.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
