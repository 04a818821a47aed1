"""Loads five pages in processes; a callback writes a line for each into a file as it arrives.

Callbacks run in the process that added them. The pages come from the server of the tests, at the
address in `EXAMPLES_SERVER`. An argument is another file than `pages.txt`.
"""

import os
import sys
from concurrent.futures import Future, ProcessPoolExecutor
from dataclasses import dataclass
from urllib.request import urlopen

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
FILE = sys.argv[1] if len(sys.argv) > 1 else "pages.txt"


@dataclass
class Page:
    url: str
    text: str


def load(url: str) -> Page:
    print(f"process {os.getpid()} loads {url}")
    with urlopen(url, timeout=60) as answer:
        return Page(url, answer.read().decode())


def record(future: Future[Page]) -> None:
    page = future.result()
    print(f"process {os.getpid()} records {page.url}")
    with open(FILE, "a", encoding="utf-8") as file:
        file.write(f"{page.url} has {len(page.text)} characters\n")


def main() -> None:
    with ProcessPoolExecutor(max_workers=3) as pool:
        for number in range(1, 6):
            pool.submit(load, f"{SERVER}/page/{number}").add_done_callback(record)


if __name__ == "__main__":
    main()
