"""Shows the order of results: that of the tasks with `map`, that of their ends with `as_completed`.

Two workers sleep for 3, 1 and 2 seconds. A task prints its end, the main thread each arrival.
"""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed

DURATIONS = [3, 1, 2]


def nap(seconds: int) -> int:
    time.sleep(seconds)
    print(f"end of {seconds} s")
    return seconds


with ThreadPoolExecutor(max_workers=2) as pool:
    print("map:")
    for seconds in pool.map(nap, DURATIONS):
        print(f"arrival of {seconds} s")

    print("as_completed:")
    for future in as_completed([pool.submit(nap, seconds) for seconds in DURATIONS]):
        print(f"arrival of {future.result()} s")
