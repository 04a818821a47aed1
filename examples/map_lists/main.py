"""`map` over two lists at once, after the tutorial's program that adds their numbers."""

from concurrent.futures import ThreadPoolExecutor

executor = ThreadPoolExecutor(10)


def test_function(num1, num2):
    return "%s + %s = %s" % (num1, num2, num1 + num2)


result_iterators = executor.map(test_function, [1, 2, 3], [5, 6, 7])

for result in result_iterators:
    print(result)
