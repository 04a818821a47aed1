"""The experiment with `map`: who waits when, with time stamps.

After the tutorial's program. Three workers get six tasks, of which each takes a second longer than
the one before. `map` returns at once; its results come in the order of the tasks, and each is
waited for. As in the tutorial, it is the iterator that is printed each time.
"""

from concurrent import futures
from time import sleep, strftime


def display(*args):
    print(strftime("%H:%M:%S"), end=" ")
    print(*args)


def wait(n):
    msg = "{} wait({}): doing nothing for {}s..."
    display(msg.format("\t" * n, n, n))
    sleep(n)
    msg = "{} wait({}) done."
    display(msg.format("\t" * n, n))
    return n * 10


def main():
    display("********** Starting **********")
    executor = futures.ThreadPoolExecutor(max_workers=3)
    results = executor.map(wait, range(6))
    display("Results:", results)
    display("Waiting for individual results:")
    for i, result in enumerate(results):
        display("result {}:{}".format(i, results))


if __name__ == "__main__":
    main()
