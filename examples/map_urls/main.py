"""Loads pages with `map`, which gives them in the order of their URLs.

After the tutorial's program that does in two lines what `load_url` does with `as_completed`. The
first page that cannot be loaded ends it.
"""

import concurrent.futures
import os
import urllib.request

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
URLS = [SERVER + "/page/1", SERVER + "/page/2", SERVER + "/page/3"]


def load_url(url):
    with urllib.request.urlopen(url, timeout=60) as conn:
        return conn.read()


with concurrent.futures.ThreadPoolExecutor(max_workers=3) as executor:
    future_dic = {}
    for url, data in zip(URLS, executor.map(load_url, URLS)):
        print("%r page is %d bytes" % (url, len(data)))
        future_dic[url] = data
