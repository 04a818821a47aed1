"""Waits until the first of three tasks is done, and prints which are and which are not.

After the tutorial's program with `wait(FIRST_COMPLETED)`. The end of the `with` waits for the
other two.
"""

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait


def worker(times):
    time.sleep(times)
    print("Get--", times)
    return times


seconds = [3, 1, 2]
with ThreadPoolExecutor(max_workers=2) as executor:
    tasks = [executor.submit(worker, i) for i in seconds]
    task_result = wait(tasks, return_when=FIRST_COMPLETED)
    print(task_result)
    print("main")
