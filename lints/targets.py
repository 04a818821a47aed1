"""Checks that the crate and the Python module compile for other systems, without linking.

    python3 lints/targets.py [TARGET…]

Each check needs the standard library of its target: ``rustup target add TARGET``. Where it is not
there, but its sources are (``rust-src``), the standard library is checked along. A target without
both is skipped, with the reason. A warning is a failure.
"""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

CRATE = ["-p", "concurrent-futures"]
MODULE = ["-p", "concurrent-futures-python"]

#: The packages to check for each target. On Windows, both have threads only.
TARGETS = {
    "aarch64-apple-darwin": [CRATE, [*CRATE, "--tests"], [*CRATE, "--no-default-features"], MODULE],
    "x86_64-pc-windows-msvc": [CRATE, [*CRATE, "--no-default-features"], MODULE],
    "x86_64-pc-windows-gnu": [CRATE, [*CRATE, "--no-default-features"], MODULE],
    "x86_64-unknown-freebsd": [CRATE],
    "aarch64-unknown-linux-gnu": [CRATE, MODULE],
}

#: The programs that the sources of the standard library need, for some targets.
TOOLS = {"x86_64-pc-windows-gnu": "x86_64-w64-mingw32-dlltool"}

#: A warning about our sources. Those of the standard library may have some, too.
WARNING = re.compile(r"^warning: .*\n *--> (crates|python)/", re.MULTILINE)


def printed(*what: str) -> str:
    """Return the answer of the compiler; nothing if it has none."""
    command = [os.environ.get("RUSTC", "rustc"), "--print", *what]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return ""


def has_library(target: str) -> bool:
    """Return whether the standard library of a target is there."""
    folder = printed("target-libdir", "--target", target)
    return bool(folder) and any(Path(folder).glob("libstd-*"))


def has_sources() -> bool:
    """Return whether the sources of the standard library are there."""
    return Path(printed("sysroot"), "lib/rustlib/src/rust/library/Cargo.lock").exists()


def check(
    target: str, packages: list[str], options: list[str], environment: dict[str, str]
) -> bool:
    """Check one build, and return whether it succeeded without a warning of our packages."""
    cargo = os.environ.get("CARGO", "cargo")
    command = [cargo, "check", "--quiet", "--target", target, *options, *packages]
    command += ["--target-dir", "target/check"]
    done = subprocess.run(command, env=environment, stderr=subprocess.PIPE, text=True)
    print(done.stderr, end="", file=sys.stderr)
    succeeded = done.returncode == 0 and not WARNING.search(done.stderr)
    print("checked" if succeeded else "failed", target, *packages, flush=True)
    return succeeded


def main(targets: list[str]) -> int:
    """Check the targets, and return how many checks failed."""
    failed = 0
    # PyO3 asks no interpreter for a module that is not linked.
    environment = {**os.environ, "PYO3_CROSS_PYTHON_VERSION": "3.13"}
    for target in targets or TARGETS:
        options: list[str] = []
        tool = TOOLS.get(target)
        if not has_library(target):
            if not has_sources():
                print(f"skipped {target}: `rustup target add {target}` has not been run")
                continue
            if tool is not None and shutil.which(tool) is None:
                print(f"skipped {target}: the standard library's sources need {tool}")
                continue
            options = ["-Zbuild-std=std,panic_unwind"]
        for packages in TARGETS[target]:
            # A stable compiler checks the sources if it is told that this is known.
            own = {**environment, "RUSTC_BOOTSTRAP": "1"} if options else environment
            failed += not check(target, packages, options, own)
    return failed


if __name__ == "__main__":
    sys.exit(min(main(sys.argv[1:]), 1))
