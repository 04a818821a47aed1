"""Squares eleven numbers in three processes, each in its own time.

After the tutorial's program for a process pool.
"""

import os
import random
import time
from concurrent.futures import ProcessPoolExecutor


def task(n):
    print("%s is running" % os.getpid())
    time.sleep(random.randint(1, 3))
    return n**2


if __name__ == "__main__":
    executor = ProcessPoolExecutor(max_workers=3)

    futures = []
    for i in range(11):
        future = executor.submit(task, i)
        futures.append(future)
    executor.shutdown(True)
    print("+++>")
    for future in futures:
        print(future.result())
