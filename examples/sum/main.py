"""Multiplies ten numbers by the sum of 1 to 10,000,000: alone, with threads, with processes.

After the tutorial's first program, whose task is there only to take time. An argument is another
last summand.
"""

import concurrent.futures
import sys
import time

LAST = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000

number_list = list(range(1, 11))


def evaluate_item(item):
    total = 0
    for summand in range(1, LAST + 1):
        total += summand
    print(f"number {item}, result {item * total}")


if __name__ == "__main__":
    start_time = time.time()
    for item in number_list:
        evaluate_item(item)
    print("one after another: " + str(time.time() - start_time), "s")

    start_time_1 = time.time()
    with concurrent.futures.ThreadPoolExecutor(max_workers=5) as executor:
        for item in number_list:
            executor.submit(evaluate_item, item)
    print("pool of 5 threads: " + str(time.time() - start_time_1), "s")

    start_time_2 = time.time()
    with concurrent.futures.ProcessPoolExecutor(max_workers=5) as executor:
        for item in number_list:
            executor.submit(evaluate_item, item)
    print("pool of 5 processes: " + str(time.time() - start_time_2), "s")
