"""Downloads pictures one after another, into the folder `pictures`.

The tutorial's program to compare the other two with; they take all but the downloading from here.
"""

import os
import sys
import time

import requests

SERVER = os.environ.get("EXAMPLES_SERVER", "http://127.0.0.1:8000")
DOWNLOAD_DIR = "pictures"
BASE_URL = SERVER + "/Files/pic/pic9/202002/"
image_list = ["zzpic231" + str(i) + "_s.jpg" for i in range(50, 80)]


def save_image(img, filename):
    path = os.path.join(DOWNLOAD_DIR, filename)
    with open(path, "wb") as fp:
        fp.write(img)


def get_image(suffix):
    url = os.path.join(BASE_URL, suffix)
    response = requests.get(url)
    return response.content


def show(text):
    print(text, end="\n")
    sys.stdout.flush()


def download_all(image_name_list):
    for image_name in image_name_list:
        image = get_image(image_name)
        save_image(image, image_name)
        show(image)
    return len(image_name_list)


def main(download_task):
    os.makedirs(DOWNLOAD_DIR, exist_ok=True)
    t0 = time.time()
    count = download_task(image_list)
    elapsed = time.time() - t0
    msg = f"\n download {count} images in {elapsed}s"
    print(msg)


if __name__ == "__main__":
    main(download_all)
