"""Loads pages in processes; a callback parses each as soon as it is there, into `db.txt`.

After the tutorial's program with `get_page` and `parse_page`. The callbacks run in the process
that added them.
"""

import os
from concurrent.futures import ProcessPoolExecutor

import requests

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")


def get_page(url):
    print("<process %s> get %s" % (os.getpid(), url))
    response = requests.get(url)
    if response.status_code == 200:
        return {"url": url, "text": response.text}


def parse_page(res):
    res = res.result()
    print("<process %s> parse %s" % (os.getpid(), res["url"]))
    parse_res = "url:<%s> size:[%s]\n" % (res["url"], len(res["text"]))
    with open("db.txt", "a") as f:
        f.write(parse_res)


if __name__ == "__main__":
    urls = [
        SERVER + "/page/1",
        SERVER + "/page/2",
        SERVER + "/page/3",
        SERVER + "/page/4",
        SERVER + "/page/5",
    ]

    p = ProcessPoolExecutor(3)
    for url in urls:
        # parse_page gets the future, and the page from its result.
        p.submit(get_page, url).add_done_callback(parse_page)
