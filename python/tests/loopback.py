"""A small site on loopback, for the tutorials' programs in place of the internet.

`python python/tests/loopback.py [PORT]` serves it until Ctrl-C, on port 8000 if none is given. It
has the pages `/page/1` to `/page/9`, and under `/Files/pic/pic9/202002/` the 30 pictures
`zzpic23150_s.jpg` to `zzpic23179_s.jpg`; all else is not found. What it sends never changes.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PICTURES = range(50, 80)
PORT = 8000


def page(number: int) -> bytes:
    """The page of a number, as of the Rust programs: larger than the one before."""
    paragraphs = "<p>All work and no play makes Jack a dull boy.</p>\n" * number
    return f"<!doctype html>\n<title>Page {number}</title>\n{paragraphs}".encode()


def picture_name(number: int) -> str:
    """The file name of a picture."""
    return f"zzpic231{number}_s.jpg"


def picture(number: int) -> bytes:
    """The bytes of a picture: a pattern of its own, between the markers of a JPEG file.

    They are few, for the tutorial's program prints them.
    """
    pattern = bytes((at * at + at * number) % 251 for at in range(100 + number))
    return b"\xff\xd8" + pattern + b"\xff\xd9"


def _site() -> dict[str, tuple[str, bytes]]:
    """The content type and the body of each path."""
    site = {f"/page/{number}": ("text/html", page(number)) for number in range(1, 10)}
    for number in PICTURES:
        path = "/Files/pic/pic9/202002/" + picture_name(number)
        site[path] = ("image/jpeg", picture(number))
    return site


class _Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    site = _site()

    def do_GET(self) -> None:
        found = self.site.get(self.path)
        if found is None:
            self.send_error(HTTPStatus.NOT_FOUND)
            return
        content_type, body = found
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Says nothing: the programs tell what they have loaded."""


class _Server(ThreadingHTTPServer):
    # The programs connect many times at once, and none shall have to try again.
    request_queue_size = 128


@contextmanager
def serve() -> Iterator[str]:
    """Serves the site on a free port while the block runs; gives the address, without a path."""
    with _Server(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, name="loopback")
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


def main() -> None:
    """Serves the site until Ctrl-C."""
    port = int(sys.argv[1]) if len(sys.argv) > 1 else PORT
    with _Server(("127.0.0.1", port), _Handler) as server:
        print(f"http://127.0.0.1:{server.server_port}", flush=True)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


if __name__ == "__main__":
    main()
