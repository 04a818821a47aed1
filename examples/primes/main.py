"""Tells which of some large numbers are prime, with a process for each processor."""

from concurrent.futures import ProcessPoolExecutor
from math import isqrt

NUMBERS = [
    112_272_535_095_293,
    112_582_705_942_171,
    112_272_535_095_293,
    115_280_095_190_773,
    115_797_848_077_099,
    1_099_726_899_285_419,
]


def smallest_divisor(number: int) -> int:
    """Returns the smallest divisor above 1, which is the number itself if it is prime."""
    if number % 2 == 0:
        return 2
    odd = range(3, isqrt(number) + 1, 2)
    return next((divisor for divisor in odd if number % divisor == 0), number)


def main() -> None:
    with ProcessPoolExecutor() as pool:
        for number, divisor in zip(NUMBERS, pool.map(smallest_divisor, NUMBERS), strict=True):
            kind = "prime" if divisor == number else f"a multiple of {divisor}"
            print(f"{number} is {kind}")


if __name__ == "__main__":
    main()
