"""The command ``python -m concurrent_futures worker``: a host of a cluster, and nothing else."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from concurrent_futures_cluster._errors import ClusterConnectionError, ClusterError
from concurrent_futures_cluster._host import ClusterHost

if TYPE_CHECKING:
    from typing import Any

#: The variables that the workers need not know.
_SECRETS = {
    "key": "CONCURRENT_FUTURES_KEY",
    "token": "CONCURRENT_FUTURES_TOKEN",
    "nkey": "CONCURRENT_FUTURES_NKEY",
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m concurrent_futures worker",
        description="Runs the tasks of a queue, until SIGTERM or Ctrl-C drains the host: it takes"
        " no more tasks, and ends when the running ones are done. A second signal ends it at once.",
        epilog="The key of the queue is in the variable CONCURRENT_FUTURES_KEY. A token or the"
        " seed of an NKey is in CONCURRENT_FUTURES_TOKEN or CONCURRENT_FUTURES_NKEY. Functions"
        " are imported as by Python in the current directory.",
    )
    parser.add_argument("url", help="the server, such as nats://10.0.0.1:4222")
    parser.add_argument("--queue", help="default: $CONCURRENT_FUTURES_QUEUE, or 'default'")
    parser.add_argument("--workers", type=int, help="default: the number of CPUs")
    parser.add_argument(
        "--drain", type=float, default=30, help="seconds that running tasks have at the end; 30"
    )
    parser.add_argument("--key-file", type=Path, help="a file with the key, without its line end")
    parser.add_argument("--credentials", type=Path, help="a file to log in with")
    parser.add_argument("--tls", type=Path, help="a file with further root certificates")
    parser.add_argument("--tag", help="a text that clients have in common with the host")
    parser.add_argument("--lease", type=float, help="seconds without a sign of life; 15")
    parser.add_argument("--object-store", help="a folder for long payloads, such as file:///shared")
    parser.add_argument("--insecure", action="store_true", help="another machine without a key")
    return parser


def main(arguments: list[str]) -> int:
    """Be a host; return the exit code."""
    options: dict[str, Any] = vars(_parser().parse_args(arguments))
    for name, variable in _SECRETS.items():
        if value := os.environ.pop(variable, None):
            options[name] = value
    if path := options.pop("key_file"):
        options["key"] = path.read_bytes().rstrip(b"\r\n")
    # The handlers write into a pipe: the main thread reads it, and holds no lock.
    reader, writer = os.pipe()
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: os.write(writer, b"!"))
    try:
        host = _begin(options, reader)
    except (ClusterError, ValueError) as error:
        print(f"the host cannot work: {error}", file=sys.stderr)
        return 70
    if host is None:
        return 0
    os.read(reader, 1)
    draining = threading.Thread(target=_drain, args=(host, writer), daemon=True)
    draining.start()
    if os.read(reader, 1) == b"!":
        # The second signal: the workers end with this process.
        os._exit(1)
    draining.join()
    return 0


def _begin(options: dict[str, Any], signals: int) -> ClusterHost | None:
    """Start the host. The server may start after it. Return None after a signal."""
    import select

    pause, told = 0.05, ""
    while True:
        try:
            return ClusterHost(**options)
        except ClusterConnectionError as error:
            if str(error) != told:
                told = str(error)
                print(f"the host waits for its server: {told}", file=sys.stderr, flush=True)
        if select.select([signals], [], [], pause)[0]:
            return None
        pause = min(2 * pause, 5)


def _drain(host: ClusterHost, writer: int) -> None:
    host.stop()
    os.write(writer, b".")
