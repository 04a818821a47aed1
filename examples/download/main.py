"""Downloads 30 pictures into the folder `pictures`, in the way that an argument names.

`threads` takes 20 threads (the default), `processes` one process for each processor, `loop` no
pool. The pictures come from the server of the tests, at the address in `EXAMPLES_SERVER`.
"""

import os
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from urllib.request import urlopen

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
FOLDER = Path("pictures")
NAMES = [f"{number}.jpg" for number in range(1, 31)]


def download(name: str) -> str:
    with urlopen(f"{SERVER}/pictures/{name}", timeout=60) as answer:
        picture = answer.read()
    (FOLDER / name).write_bytes(picture)
    return f"{name} has {len(picture)} bytes"


def download_all(run: Callable[..., Iterable[str]]) -> None:
    start = time.perf_counter()
    for line in run(download, NAMES):
        print(line)
    print(f"{len(NAMES)} pictures in {time.perf_counter() - start:.3f} s")


def main() -> None:
    way = sys.argv[1] if len(sys.argv) > 1 else "threads"
    FOLDER.mkdir(exist_ok=True)
    if way == "loop":
        download_all(map)
        return
    with ProcessPoolExecutor() if way == "processes" else ThreadPoolExecutor(20) as pool:
        download_all(pool.map)


if __name__ == "__main__":
    main()
