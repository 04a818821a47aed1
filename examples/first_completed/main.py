"""Blocks until the first of three tasks is done, and prints all futures in two groups.

Two workers sleep for 3, 1 and 2 seconds. The end of the `with` block waits for the other tasks.
"""

import time
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait


def nap(seconds: int) -> int:
    time.sleep(seconds)
    print(f"end of {seconds} s")
    return seconds


with ThreadPoolExecutor(max_workers=2) as pool:
    naps = [pool.submit(nap, seconds) for seconds in (3, 1, 2)]
    done, not_done = wait(naps, return_when=FIRST_COMPLETED)
    for future in done:
        print("done:", future)
    for future in not_done:
        print("not done:", future)
