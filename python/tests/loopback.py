"""A small site on loopback, for the examples and the tutorials in place of the internet.

`python python/tests/loopback.py [PORT]` serves it until Ctrl-C, on port 8000 if none is given. It
has the pages `/page/1` to `/page/9`, and 30 pictures in the folders `/pictures/` and
`/Files/pic/pic9/202002/`, where a tutorial looks for them. Other paths are not found. The answers
never change.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PICTURES = range(1, 31)
PORT = 8000


def page(number: int) -> bytes:
    """Return the page with this number, as in the Rust programs: larger than the previous page."""
    paragraphs = "<p>A page grows with its number.</p>\n" * number
    return f"<!doctype html>\n<title>Page {number}</title>\n{paragraphs}".encode()


def picture(number: int) -> bytes:
    """Returns the bytes of a picture: a pattern of its own, between the markers of a JPEG file.

    They are few, because a tutorial's program prints them.
    """
    pattern = bytes((at * at + at * number) % 251 for at in range(150 + number))
    return b"\xff\xd8" + pattern + b"\xff\xd9"


def tutorial_name(number: int) -> str:
    """Returns the file name of a picture in the tutorial."""
    return f"zzpic231{49 + number}_s.jpg"


def _site() -> dict[str, tuple[str, bytes]]:
    """Returns the content type and the body of each path."""
    site = {f"/page/{number}": ("text/html", page(number)) for number in range(1, 10)}
    for number in PICTURES:
        image = ("image/jpeg", picture(number))
        site[f"/pictures/{number}.jpg"] = image
        site["/Files/pic/pic9/202002/" + tutorial_name(number)] = image
    return site


class _Handler(BaseHTTPRequestHandler):
    """Answers one request.

    A path that begins with `/host/` stands for the main page of a host of the internet.
    """

    site = _site()

    def do_GET(self) -> None:
        found = self.site.get(self.path)
        if self.path.startswith("/host/"):
            found = ("text/html", page(len(self.path) % 9 + 1))
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
        """Logs nothing: the programs print their requests."""


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
