"""Loads pages in parallel, and prints what became of each as soon as it is known.

After the tutorial's program with `as_completed`. One of the pages is missing.
"""

import concurrent.futures
import os
import urllib.request

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
URLS = [SERVER + "/page/1", SERVER + "/missing", SERVER + "/page/3"]


def load_url(url, timeout):
    with urllib.request.urlopen(url, timeout=timeout) as conn:
        return conn.read()


with concurrent.futures.ThreadPoolExecutor(max_workers=3) as executor:
    # Each future goes with its URL.
    future_to_url = {}
    for url in URLS:
        future_to_url[executor.submit(load_url, url, 60)] = url
    for future in concurrent.futures.as_completed(future_to_url):
        url = future_to_url[future]
        try:
            data = future.result()
        except Exception as exc:
            print("%r generated an exception: %s" % (url, exc))
        else:
            print("%r page is %d bytes" % (url, len(data)))
