"""The command ``python -m concurrent_futures top``: shows the queues and the hosts of a server."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from concurrent_futures_cluster import _native
from concurrent_futures_cluster._errors import ClusterConnectionError, ClusterError
from concurrent_futures_cluster._settings import settings

if TYPE_CHECKING:
    from typing import Any

#: From the upper left corner of an empty screen.
_CLEAR = "\x1b[H\x1b[2J"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m concurrent_futures top",
        description="Shows the queues and the hosts of a server, and changes nothing there.",
        epilog="The key of the queues is in the variable CONCURRENT_FUTURES_KEY; hosts with"
        " another key are counted only. A token or the seed of an NKey is in"
        " CONCURRENT_FUTURES_TOKEN or CONCURRENT_FUTURES_NKEY. docs/cluster.md describes the JSON.",
    )
    parser.add_argument(
        "url", nargs="?", help="such as nats://10.0.0.1:4222; default: $CONCURRENT_FUTURES_URL"
    )
    parser.add_argument("--queue", help="this queue only, which needs fewer rights")
    parser.add_argument("--interval", type=float, default=1, help="seconds between two looks; 1")
    parser.add_argument("--once", action="store_true", help="end after one interval")
    parser.add_argument("--json", action="store_true", help="a line of JSON for each look")
    parser.add_argument("--key-file", type=Path, help="a file with the key, without its line end")
    parser.add_argument("--credentials", type=Path, help="a file to log in with")
    parser.add_argument("--tls", type=Path, help="a file with further root certificates")
    return parser


def main(arguments: list[str]) -> int:
    """Show the server until Ctrl-C; return the exit code."""
    parser = _parser()
    options: dict[str, Any] = vars(parser.parse_args(arguments))
    if not options["interval"] >= 0:
        parser.error("--interval must not be negative")
    key = None
    if path := options["key_file"]:
        key = path.read_bytes().rstrip(b"\r\n")
    try:
        observer = _native.Observer(
            settings(
                options["url"],
                options["queue"],
                key,
                insecure=True,
                token=None,
                credentials=options["credentials"],
                nkey=None,
                tls=options["tls"],
                tag=None,
                lease=None,
            )
        )
        _show(observer, options["interval"], options["once"], options["json"])
    except (ClusterError, ValueError) as error:
        print(error, file=sys.stderr)
        return 70
    except KeyboardInterrupt:
        return 0
    except BrokenPipeError:
        # The reader has seen enough. The interpreter's end must not write, either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def _show(observer: _native.Observer, interval: float, is_once: bool, is_json: bool) -> None:
    is_live = not is_once and not is_json and sys.stdout.isatty()
    if is_once:
        # Rates are those of the interval.
        observer.look()
        time.sleep(interval)
    while True:
        try:
            table, document = observer.look()
        except ClusterConnectionError as error:
            if is_once:
                raise
            # The next look may find the server again.
            print(f"no answer: {error}", file=sys.stderr)
        else:
            text = f"{document}\n" if is_json else table
            sys.stdout.write(_CLEAR + text if is_live else text)
            sys.stdout.flush()
        if is_once:
            return
        time.sleep(interval)
