"""Finds the interpreters to test with: the one that runs this, and CPython 3.11 and 3.13.

    python3 pythons.py             prints their versions, such as "3.11 3.13"
    python3 pythons.py 3.13        prints the path of that one

Looks in PATH, in the usual folders and where pyenv puts them. Runs on any Python 3, as it is
what tells that there is none that suits.
"""

import glob
import os
import re
import subprocess
import sys

OLDEST = (3, 11)
WANTED = ["3.11", "3.13"]

# Fails where something is missing that a virtual environment with pip needs.
LOOK = """
import ensurepip, sys, venv
assert sys.implementation.name == "cpython"
print("%d.%d" % sys.version_info[:2])
print(sys.executable)
"""


def candidates():
    """Yield paths that could be interpreters, the best ones first."""
    yield sys.executable
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for folder in [*folders, *sorted(glob.glob(os.path.join(pyenv, "versions/*/bin")))]:
        for path in sorted(glob.glob(os.path.join(folder, "python3.*"))):
            name = os.path.basename(path)
            if re.fullmatch(r"python3\.\d+", name) and number(name[len("python") :]) >= OLDEST:
                yield path


def find():
    """Return the path of one interpreter of each version that there is."""
    found = {}
    for path in candidates():
        if os.path.basename(path)[len("python") :] in found:
            continue
        # A file may only look like an interpreter: pyenv has one for each version that exists.
        try:
            command = [path, "-I", "-c", LOOK]
            output = subprocess.check_output(command, stderr=subprocess.DEVNULL).decode()
        except (OSError, subprocess.CalledProcessError):
            continue
        version, executable = output.splitlines()
        if number(version) >= OLDEST:
            found.setdefault(version, executable)
    return found


def number(version):
    """Return a version as a tuple, which can be compared."""
    return tuple(map(int, version.split(".")))


def main():
    """Print what is asked for."""
    found = find()
    if len(sys.argv) > 1:
        print(found[sys.argv[1]])
        return
    own = f"{sys.version_info.major}.{sys.version_info.minor}"
    chosen = {version for version in [own, *WANTED] if version in found}
    if not chosen and found:
        chosen = {max(found, key=number)}
    if not chosen:
        sys.exit("pythons.py: no CPython from 3.11 on with the modules venv and ensurepip here")
    print(*sorted(chosen, key=number))


main()
