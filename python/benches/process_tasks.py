"""The tasks of the contestants' worker processes: each worker imports this module."""

import os
import time


def no_op(_: object = None) -> bool:
    """Do nothing."""
    return True


def identity(item: int) -> int:
    """Return the item."""
    return item


def echo(value: object) -> object:
    """Return the value."""
    return value


def pause() -> bool:
    """Take long enough for the other workers to take a task, too."""
    time.sleep(0.02)
    return True


def exit_at(item: int, bad: int) -> int:
    """Return the item; but the worker exits at the bad one."""
    if item == bad:
        os._exit(1)
    return item
