"""Two tasks in a pool, and what their futures know while they run.

After the tutorial's first use of a thread pool. Prints `False`, for the first task has just begun;
three seconds later `True`, for the second is done; then both results at once.
"""

import time
from concurrent.futures import ThreadPoolExecutor


def return_future_result(message):
    time.sleep(2)
    return message


pool = ThreadPoolExecutor(max_workers=2)
future1 = pool.submit(return_future_result, ("hello"))
future2 = pool.submit(return_future_result, ("world"))

print(future1.done())
time.sleep(3)
print(future2.done())
print(future1.result())
print(future2.result())
