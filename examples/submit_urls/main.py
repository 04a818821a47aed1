"""Submits a task for each of many addresses, to threads and then to processes.

After the tutorial's program, whose download only prints the address and sleeps. It has 100,000
addresses, for which it needs eleven hours; here there are 20, or as many as an argument says.
"""

import concurrent.futures
import os
import sys
import time

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
PAGES = int(sys.argv[1]) if len(sys.argv) > 1 else 20

urls = [f"{SERVER}/board/4?offset={page}" for page in range(PAGES)]


def download(url):
    print(url)
    # Stands for the time that a download takes.
    time.sleep(1)


if __name__ == "__main__":
    start_time_1 = time.time()
    with concurrent.futures.ThreadPoolExecutor(max_workers=5) as executor:
        for url in urls:
            executor.submit(download, url)
    print("pool of 5 threads: " + str(time.time() - start_time_1), "s")

    start_time_2 = time.time()
    with concurrent.futures.ProcessPoolExecutor(max_workers=5) as executor:
        for url in urls:
            executor.submit(download, url)
    print("pool of 5 processes: " + str(time.time() - start_time_2), "s")
