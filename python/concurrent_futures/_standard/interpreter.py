"""The standard library's pool of interpreters, under this package's name."""

import importlib
from typing import Any

# From CPython 3.14 on.
interpreter: Any = importlib.import_module("concurrent.futures.interpreter")
BrokenInterpreterPool = interpreter.BrokenInterpreterPool
InterpreterPoolExecutor = interpreter.InterpreterPoolExecutor

__all__ = ["BrokenInterpreterPool", "InterpreterPoolExecutor"]


def __getattr__(name: str) -> Any:
    return getattr(interpreter, name)
