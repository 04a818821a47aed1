"""The live page: a recording that a browser shows while the program runs."""

import atexit
import contextlib
import hmac
import os
import secrets
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

from concurrent_futures._recording import Recording, recording

__all__ = ["Dashboard", "dashboard"]

#: The seconds between two updates.
_PAUSE = 0.5
#: The part of the time that updates of one page may take.
_SHARE = 0.1
#: The records that each thread keeps by default, for pages that are opened later.
_RECORDS = 1 << 15
#: The seconds for which the end of the program waits for pages to get the last update.
_PATIENCE = 2.0


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, port: int, recorded: Recording) -> None:
        self.recorded = recorded
        self.token = secrets.token_urlsafe(16)
        self.ends = threading.Event()
        self.connections = 0
        self.changed = threading.Condition()
        super().__init__(("127.0.0.1", port), _Handler)

    def server_bind(self) -> None:
        # Without the look-up of the host's name, which may ask the network.
        if os.name != "nt":
            # A port that a former run of the program had; one that is listened to stays taken.
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "127.0.0.1", self.server_address[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Tell nothing: a page that is closed in the middle of an update is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    # A client that sends nothing, or takes nothing, keeps its thread for this long at most.
    timeout = 30

    def log_message(self, format: str, *args: Any) -> None:
        """Tell nothing: the program's error stream is the program's."""

    def do_GET(self) -> None:
        """Answer with the page or with its updates."""
        address = urlsplit(self.path)
        token = parse_qs(address.query).get("token", [""])[0]
        host = self.headers.get("Host", "").rpartition(":")[0]
        if host not in ("127.0.0.1", "localhost") or not hmac.compare_digest(
            token.encode(), self.server.token.encode()
        ):
            self.send_error(403, "The address needs the token that the program has told.")
        elif address.path == "/":
            page = self.server.recorded._page(f"events?token={self.server.token}")
            self._begin("text/html; charset=utf-8", len(page))
            self.wfile.write(page)
        elif address.path == "/events":
            self._begin("text/event-stream", None)
            with self._counted():
                self._send_updates()
        else:
            self.send_error(404)

    def _begin(self, kind: str, length: "int | None") -> None:
        self.send_response(200)
        self.send_header("Content-Type", kind)
        self.send_header("Cache-Control", "no-store")
        self.send_header("Referrer-Policy", "no-referrer")
        self.send_header("X-Content-Type-Options", "nosniff")
        if length is not None:
            self.send_header("Content-Length", str(length))
        self.end_headers()

    @contextlib.contextmanager
    def _counted(self) -> Any:
        server = self.server
        with server.changed:
            server.connections += 1
        try:
            yield
        finally:
            with server.changed:
                server.connections -= 1
                server.changed.notify_all()

    def _send_updates(self) -> None:
        """Send the recording until it ends, or the page is closed."""
        self.close_connection = True
        follower = self.server.recorded._follow()
        goes_on = True
        while goes_on:
            began = time.monotonic()
            document, goes_on = follower.update()
            self.wfile.write(b"data: " + document + b"\n\n")
            self.wfile.flush()
            took = time.monotonic() - began
            # Many events take long: the program is to have the CPU for most of the time.
            if goes_on:
                self.server.ends.wait(max(_PAUSE, took / _SHARE))
        self.wfile.write(b"event: end\ndata:\n\n")
        self.wfile.flush()


class Dashboard:
    """A page on this machine that shows what the pools of this process do; see `dashboard`.

    Examples
    --------
    >>> from concurrent_futures import dashboard
    >>> with dashboard() as page:
    ...     page.address.startswith("http://127.0.0.1:")
    True
    """

    def __init__(self, port: int, records_per_thread: int) -> None:
        self._recording = recording(records_per_thread=records_per_thread)
        try:
            self._server = _Server(port, self._recording)
        except BaseException:
            self._recording.stop()
            raise
        self._owner = os.getpid()
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="concurrent_futures dashboard",
            daemon=True,
        )
        self._thread.start()
        atexit.register(self.close)

    @property
    def address(self) -> str:
        """The address for a browser on this machine, with the token that it needs.

        Examples
        --------
        >>> from concurrent_futures import dashboard
        >>> with dashboard() as page:
        ...     "/?token=" in page.address
        True
        """
        return f"http://127.0.0.1:{self._server.server_port}/?token={self._server.token}"

    def close(self) -> None:
        """Stop the recording, send open pages the last update, and free the port.

        Waits two seconds at most for pages that do not read. A second call has no effect.

        Examples
        --------
        >>> from concurrent_futures import dashboard
        >>> page = dashboard()
        >>> page.close()
        """
        atexit.unregister(self.close)
        server = self._server
        if os.getpid() != self._owner or server.ends.is_set():
            return
        self._recording.stop()
        server.ends.set()
        with server.changed:
            server.changed.wait_for(lambda: server.connections == 0, _PATIENCE)
        server.shutdown()
        server.server_close()

    def __enter__(self) -> "Dashboard":
        return self

    def __exit__(self, *_error: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Dashboard at {self.address}>"

    def _repr_html_(self) -> str:
        return f'<a href="{self.address}" target="_blank">{self.address}</a>'


def dashboard(port: int = 0, *, records_per_thread: int = _RECORDS) -> Dashboard:
    """Show in a browser on this machine what the pools of this process do, from now on.

    Serves the page of recordings at a loopback address, with updates twice a second, until the
    program ends or `Dashboard.close` is called. The address (`Dashboard.address`) has a random
    token; requests without it are refused.

    Parameters
    ----------
    port
        The port; 0 takes one that is free.
    records_per_thread
        The number of records, of 64 bytes each, that each thread keeps: a page that is opened
        later shows the newest.

    Raises OSError if the port is taken, ValueError if ``records_per_thread`` is 0.

    Examples
    --------
    >>> from concurrent_futures import ThreadPoolExecutor, dashboard
    >>> with ThreadPoolExecutor() as pool, dashboard() as page:
    ...     value = pool.submit(abs, -7).result()
    ...     repr(page) == f"<Dashboard at {page.address}>"
    True
    """
    return Dashboard(port, records_per_thread)


def serve_program(port: int) -> None:
    """Serve the page of an unmodified program, and tell its address on the error stream."""
    try:
        text = f"dashboard at {dashboard(port).address}"
    except (OSError, OverflowError) as error:
        text = f"no dashboard at port {port}: {error}"
    with contextlib.suppress(Exception):
        print(f"concurrent_futures: {text}", file=sys.stderr, flush=True)
