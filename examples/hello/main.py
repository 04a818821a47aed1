"""Submits two tasks of two seconds, and asks their futures whether they are done.

The first answer comes at once, the second three seconds later. Then both results are there.
"""

import time
from concurrent.futures import ThreadPoolExecutor


def say_later(word: str) -> str:
    time.sleep(2)
    return word


with ThreadPoolExecutor(max_workers=2) as pool:
    hello = pool.submit(say_later, "hello")
    world = pool.submit(say_later, "world")
    print("hello is done:", hello.done())
    time.sleep(3)
    print("world is done:", world.done())
    print(hello.result())
    print(world.result())
