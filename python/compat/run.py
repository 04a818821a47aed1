"""Installs this package and those of requirements.txt, and runs the tests here.

    python run.py WHEEL

WHEEL is this package. The Python of an environment of its own is to run this. A package that cannot
be installed is named, with the reason, and its tests are skipped.
"""

import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]


def install(requirement: str) -> None:
    """Install one package, without building it."""
    command = [*PIP, "--only-binary", ":all:", requirement]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or ["pip failed"]
        print(f"left out: {requirement}: {lines[-1]}", flush=True)


def main() -> int:
    """Install all and test; return the exit status."""
    lines = (HERE / "requirements.txt").read_text().splitlines()
    requirements = [line for line in lines if line and not line.startswith("#")]
    whole = subprocess.run([*PIP, "--only-binary", ":all:", *requirements], capture_output=True)
    if whole.returncode:
        # One of them is the cause: each for itself.
        for requirement in requirements:
            install(requirement)
    (wheel,) = sys.argv[1:]
    subprocess.run([*PIP, "--force-reinstall", "--no-deps", wheel], check=True)
    tests = [sys.executable, "-m", "pytest", "-rs", "--rootdir", str(HERE), str(HERE)]
    return subprocess.run(tests, cwd=HERE).returncode


if __name__ == "__main__":
    sys.exit(main())
