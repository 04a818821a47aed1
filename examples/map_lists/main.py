"""Adds the numbers of two lists, pair by pair: `map` takes an iterable for each argument."""

from concurrent.futures import ThreadPoolExecutor


def addition(left: int, right: int) -> str:
    return f"{left} + {right} = {left + right}"


with ThreadPoolExecutor(max_workers=10) as pool:
    print(*pool.map(addition, [1, 2, 3], [5, 6, 7]), sep="\n")
