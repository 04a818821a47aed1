"""The same with `map` in the place of the loop.

After the tutorial's program, which does not ask for the results: the end of the program waits for
the tasks.
"""

import os
import random
import time
from concurrent.futures import ThreadPoolExecutor


def task(n):
    print("%s is running" % os.getpid())
    time.sleep(random.randint(1, 3))
    return n**2


if __name__ == "__main__":
    executor = ThreadPoolExecutor(max_workers=3)

    executor.map(task, range(1, 12))
