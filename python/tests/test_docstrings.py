"""Tests that the examples in the docstrings of public names run, and that there are some."""

import doctest
import inspect
import types
from collections.abc import Iterator

import pytest

import concurrent_futures

# The standard library's own, whose docstrings are not this package's.
BORROWED = {
    "BrokenExecutor",
    "BrokenProcessPool",
    "CancelledError",
    "Executor",
    "InvalidStateError",
    "TimeoutError",
}
# The fields of a dataclass are shown by the example of the class.
FIELDS = types.MemberDescriptorType


def documented() -> Iterator[tuple[str, object]]:
    """Yields the public names, and the public members of the classes among them."""
    for name in concurrent_futures.__all__:
        value = getattr(concurrent_futures, name)
        if isinstance(value, str) or name in BORROWED:
            continue
        yield name, value
        for member in dir(value) if isinstance(value, type) else []:
            if not member.startswith("_") and is_own(value, member):
                yield f"{name}.{member}", inspect.getattr_static(value, member)


def is_own(of: type, member: str) -> bool:
    """Return whether this package defines a member, and not a base class of the interpreter's."""
    owner = next(each for each in of.__mro__ if member in vars(each))
    return owner.__module__.partition(".")[0] == concurrent_futures.__name__


DOCUMENTED = dict(documented())
EXAMPLES = [name for name, value in DOCUMENTED.items() if ">>>" in (inspect.getdoc(value) or "")]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_run(name: str) -> None:
    text = inspect.getdoc(DOCUMENTED[name])
    assert text is not None
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    doctest.DocTestRunner(verbose=False).run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize(
    "name", [name for name, value in DOCUMENTED.items() if not isinstance(value, FIELDS)]
)
def test_public_names_and_methods_have_examples(name: str) -> None:
    assert name in EXAMPLES
