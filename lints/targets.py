"""Checks that the crate and the Python module compile for other systems, without linking.

    python3 lints/targets.py

Each check needs the standard library of its target: ``rustup target add TARGET``. A target without
it is skipped, with the reason.
"""

import os
import subprocess
import sys

CRATE = ["-p", "concurrent-futures"]
MODULE = ["-p", "concurrent-futures-python"]

#: The packages to check for each target. On Windows, the crate has threads only.
TARGETS = {
    "aarch64-apple-darwin": [CRATE, [*CRATE, "--tests"], [*CRATE, "--no-default-features"], MODULE],
    "x86_64-pc-windows-msvc": [CRATE, [*CRATE, "--no-default-features"]],
    "x86_64-pc-windows-gnu": [CRATE, [*CRATE, "--no-default-features"]],
    "x86_64-unknown-freebsd": [CRATE],
    "aarch64-unknown-linux-gnu": [CRATE, MODULE],
}


def installed() -> set[str]:
    """Return the targets whose standard library is there."""
    try:
        listed = subprocess.run(
            ["rustup", "target", "list", "--installed"], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return set()
    return set(listed.stdout.split())


def main() -> int:
    """Check each target, and return how many checks failed."""
    failed = 0
    there = installed()
    # PyO3 asks no interpreter for a module that is not linked.
    environment = {**os.environ, "PYO3_CROSS_PYTHON_VERSION": "3.13"}
    cargo = os.environ.get("CARGO", "cargo")
    for target, checks in TARGETS.items():
        if target not in there:
            print(f"skipped {target}: `rustup target add {target}` has not been run")
            continue
        for packages in checks:
            command = [cargo, "check", "--quiet", "--target", target, *packages]
            done = subprocess.run([*command, "--target-dir", "target/check"], env=environment)
            failed += done.returncode != 0
            print("failed" if done.returncode else "checked", target, *packages, flush=True)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(), 1))
