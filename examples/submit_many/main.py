"""Submits a task for each of many addresses, to threads and then to processes.

Nothing is downloaded: a task prints its address and sleeps for a second. An argument is another
number of addresses than 20. A `with` block ends after its last task.
"""

import sys
import time
from concurrent.futures import Executor, ProcessPoolExecutor, ThreadPoolExecutor


def visit(address: str) -> None:
    print(address)
    time.sleep(1)


def visit_all(pool: Executor, addresses: list[str]) -> None:
    start = time.perf_counter()
    with pool:
        for address in addresses:
            pool.submit(visit, address)
    print(f"{type(pool).__name__}: {time.perf_counter() - start:.3f} s")


def main() -> None:
    count = int(sys.argv[1]) if len(sys.argv) > 1 else 20
    addresses = [f"http://127.0.0.1/list?from={number}" for number in range(count)]
    visit_all(ThreadPoolExecutor(max_workers=5), addresses)
    visit_all(ProcessPoolExecutor(max_workers=5), addresses)


if __name__ == "__main__":
    main()
