"""Shuts a pool down with and without waiting for its tasks.

After the tutorial's program: five tasks of a second each on two workers cost three seconds with
waiting, and nothing without. The tasks are finished in both cases.
"""

import time
from concurrent.futures import ThreadPoolExecutor


def task(name):
    print("name", name)
    time.sleep(1)


for wait in [True, False]:
    print("shutdown, wait:", wait)
    start = time.time()
    executor = ThreadPoolExecutor(max_workers=2)
    for i in range(5):
        executor.submit(task, "task-%d" % i)
    executor.shutdown(wait=wait)
    end = time.time()
    print("cost:", end - start)
