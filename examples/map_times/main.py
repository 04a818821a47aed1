"""Shows with time stamps how `map` returns at once and its iterator blocks for each result.

Three workers run six tasks. Task 0 ends at once, and each other one sleeps a second longer than
the one before. A column for each task keeps the lines apart.
"""

import time
from concurrent.futures import ThreadPoolExecutor


def stamp(text: str, column: int = 0) -> None:
    print(f"{time.strftime('%H:%M:%S')} {column * 12 * ' '}{text}")


def task(number: int) -> int:
    stamp(f"task {number} sleeps", number)
    time.sleep(number)
    stamp(f"task {number} ends", number)
    return 10 * number


with ThreadPoolExecutor(max_workers=3) as pool:
    stamp("submit")
    results = pool.map(task, range(6))
    stamp("all submitted")
    for number, result in enumerate(results):
        stamp(f"result {number} is {result}")
