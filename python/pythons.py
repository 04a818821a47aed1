"""Finds the interpreters to test with: the running one, 3.11, 3.13, the newest, free-threaded ones.

    python3 pythons.py             prints their versions, such as "3.14t 3.11 3.13 3.14"
    python3 pythons.py 3.13        prints the path of that one

Looks in PATH, in the usual folders, where pyenv puts them, and at the paths that the variable
`CONCURRENT_FUTURES_PYTHONS` names (separated by colons). A version that ends with "t" is
free-threaded: it runs Python code of several threads at once. The last version that is printed is
the newest of the others. Runs on any Python 3, as it is what tells that there is none that suits.

The versions between are left out, as each takes minutes of the gate. The chosen ones are the
oldest, the one that the targets of speed are set for, and the one that has all that is new.
"""

import glob
import os
import re
import subprocess
import sys

OLDEST = (3, 11)
#: The oldest version whose free-threaded build is looked for: PyO3 refuses older ones.
OLDEST_FREE = (3, 14)
WANTED = ["3.11", "3.13"]
VARIABLE = "CONCURRENT_FUTURES_PYTHONS"

# Fails where something is missing that a virtual environment with pip needs.
LOOK = """
import ensurepip, sys, sysconfig, venv
assert sys.implementation.name == "cpython"
free = "t" if sysconfig.get_config_var("Py_GIL_DISABLED") else ""
print("%d.%d" % sys.version_info[:2] + free)
print(sys.executable)
"""


def candidates():
    """Yield paths that could be interpreters, the best ones first."""
    yield sys.executable
    yield from filter(None, os.environ.get(VARIABLE, "").split(os.pathsep))
    folders = [*os.environ.get("PATH", "").split(os.pathsep), "/usr/local/bin", "/usr/bin"]
    pyenv = os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv"))
    for folder in [*folders, *sorted(glob.glob(os.path.join(pyenv, "versions/*/bin")))]:
        for path in sorted(glob.glob(os.path.join(folder, "python3.*"))):
            name = os.path.basename(path)
            if re.fullmatch(r"python3\.\d+t?", name) and suits(name[len("python") :]):
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
        if suits(version):
            found.setdefault(version, executable)
    return found


def number(version):
    """Return a version as a tuple, which can be compared."""
    return tuple(map(int, version.rstrip("t").split(".")))


def is_free(version):
    """Return whether a version is free-threaded."""
    return version.endswith("t")


def suits(version):
    """Return whether the package is for a version."""
    return number(version) >= (OLDEST_FREE if is_free(version) else OLDEST)


def order(version):
    """Return the key by which versions are sorted: free-threaded ones come first."""
    return not is_free(version), number(version)


def main():
    """Print the answer to the command line."""
    found = find()
    if len(sys.argv) > 1:
        if sys.argv[1] not in found:
            sys.exit("pythons.py: there is no CPython " + sys.argv[1] + " with venv and ensurepip")
        print(found[sys.argv[1]])
        return
    with_lock = [version for version in found if not is_free(version)]
    own = ".".join(map(str, sys.version_info[:2]))
    chosen = {version for version in [own, *WANTED] if version in with_lock}
    if with_lock:
        chosen.add(max(with_lock, key=number))
    chosen.update(filter(is_free, found))
    if not chosen:
        sys.exit("pythons.py: no CPython from 3.11 on with the modules venv and ensurepip here")
    print(*sorted(chosen, key=order))


main()
