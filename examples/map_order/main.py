"""In which order results come: from `map` in that of its items, else the first finished first.

After the tutorial's two programs that print `Get--` at the end of a task, and `Done--` when its
result arrives.
"""

import time
from concurrent.futures import ThreadPoolExecutor, as_completed


def worker(times):
    time.sleep(times)
    print("Get--", times)
    return times


seconds = [3, 1, 2]

print("map")
with ThreadPoolExecutor(max_workers=2) as executor:
    for data in executor.map(worker, seconds):
        print("Done--", data)

print("as_completed")
with ThreadPoolExecutor(max_workers=2) as executor:
    tasks = [executor.submit(worker, i) for i in seconds]
    for future in as_completed(tasks):
        data = future.result()
        print("Done--", data)
