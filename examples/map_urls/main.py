"""Loads three pages with `map`, which yields them in the order of their addresses.

The first page that cannot be loaded ends the program. The pages come from the server of the tests,
at the address in `EXAMPLES_SERVER`.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from urllib.request import urlopen

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
PATHS = ["/page/1", "/page/2", "/page/3"]


def load(path: str) -> bytes:
    with urlopen(SERVER + path, timeout=60) as answer:
        return answer.read()


with ThreadPoolExecutor(max_workers=3) as pool:
    for path, page in zip(PATHS, pool.map(load, PATHS), strict=True):
        print(f"{path} has {len(page)} bytes")
