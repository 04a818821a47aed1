"""Shuts a pool down before its tasks are done: once `shutdown` waits for them, once it does not.

Two workers need three seconds for five tasks of a second each. All tasks run in both cases.
"""

import time
from concurrent.futures import ThreadPoolExecutor


def work(number: int) -> None:
    print(f"task {number} runs")
    time.sleep(1)


def measure(*, wait: bool) -> None:
    pool = ThreadPoolExecutor(max_workers=2)
    start = time.perf_counter()
    for number in range(5):
        pool.submit(work, number)
    pool.shutdown(wait=wait)
    print(f"shutdown took {time.perf_counter() - start:.3f} s")


print("with waiting:")
measure(wait=True)
print("without waiting:")
measure(wait=False)
