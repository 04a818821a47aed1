"""Runs an unmodified program with this package in the place of ``concurrent.futures``.

::

    python -m concurrent_futures script.py ARGUMENTS
    python -m concurrent_futures -m module ARGUMENTS

The program becomes the module ``__main__`` instead of this one, which is why everything else
is elsewhere.
"""

from concurrent_futures._run import main

if __name__ == "__main__":
    main(globals())
