"""Loads three pages in parallel, and reports each as soon as its outcome is known.

One of the pages is missing: its future raises the error. The pages come from the server of the
tests, at the address in `EXAMPLES_SERVER`.
"""

import os
from concurrent.futures import ThreadPoolExecutor, as_completed
from urllib.error import URLError
from urllib.request import urlopen

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
PATHS = ["/page/1", "/missing", "/page/3"]


def load(path: str, *, timeout: float) -> bytes:
    with urlopen(SERVER + path, timeout=timeout) as answer:
        return answer.read()


with ThreadPoolExecutor(max_workers=3) as pool:
    pages = {pool.submit(load, path, timeout=60): path for path in PATHS}
    for page in as_completed(pages):
        try:
            print(f"{pages[page]} has {len(page.result())} bytes")
        except URLError as error:
            print(f"{pages[page]} failed: {error}")
