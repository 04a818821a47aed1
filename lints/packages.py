"""Checks the contents of the packages: the crate, the source distribution and wheels.

``--crate`` packs the crate. ``--sdist [FILE]`` packs the source distribution unless there is a
file. ``--wheel FILE…`` looks into wheels. Prints each finding, and exits with 1 if there is any.
"""

import argparse
import re
import subprocess
import sys
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LICENCES = ["LICENSE-APACHE", "LICENSE-MIT"]

# Names that no package has: left-overs of builds and of editors, and tests.
JUNK = re.compile(
    r"(^|/)(target|\.venv|\.git|\.github|__pycache__|\.idea)(/|$)|\.(pyc|orig|rej|profraw|swp)$|~$"
)
ALLOWED = {"Cargo.toml.orig"}  # Cargo's copy of the manifest as it was written.

Files = dict[str, Callable[[], bytes]]


def archive(path: Path) -> Files:
    """Returns the files of a tar archive, without its topmost folder."""
    with tarfile.open(path) as tar:
        contents = {m.name: tar.extractfile(m).read() for m in tar.getmembers() if m.isfile()}
    return {name.split("/", 1)[1]: (lambda text=text: text) for name, text in contents.items()}


def wheel(path: Path) -> Files:
    """Returns the files of a wheel."""
    with zipfile.ZipFile(path) as files:
        contents = {name: files.read(name) for name in files.namelist()}
    return {name: (lambda text=text: text) for name, text in contents.items()}


def lacking(files: Iterable[str], patterns: Iterable[str]) -> Iterator[str]:
    """Yields the patterns that no name matches."""
    names = list(files)
    for pattern in patterns:
        if not any(re.fullmatch(pattern, name) for name in names):
            yield f"no {pattern}"


def superfluous(files: Files, allowed: str) -> Iterator[str]:
    """Yields the names that are junk, or that nothing allows."""
    for name in files:
        junk = JUNK.search(name) and name.rsplit("/", 1)[-1] not in ALLOWED
        if junk or not re.fullmatch(allowed, name):
            yield f"{name} does not belong there"


def places(files: Files) -> Iterator[str]:
    """Yields the files that name the folder of this checkout."""
    for name, read in files.items():
        # The list of dependencies names each by the place that it was built from.
        if "/sboms/" not in name and str(ROOT).encode() + b"/" in read():
            yield f"{name} names {ROOT}"


def crate() -> Iterator[str]:
    """Packs the crate, and yields findings."""
    command = [
        "cargo",
        "package",
        "--quiet",
        "--no-verify",
        "--allow-dirty",
        "-p",
        "concurrent-futures",
    ]
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*command, "--target-dir", folder], cwd=ROOT, check=True)
        (path,) = Path(folder, "package").glob("*.crate")
        files = archive(path)
    yield from lacking(files, ["Cargo.toml", r"README\.md", r"src/lib\.rs", *LICENCES])
    yield from superfluous(
        files,
        r"src/.*\.(rs|md)|src/page/timeline\.html|Cargo\..*|README\.md|LICENSE-.*"
        r"|\.cargo_vcs_info\.json",
    )
    yield from places(files)


def sdist(path: Path | None) -> Iterator[str]:
    """Packs the source distribution unless there is one, and yields findings."""
    with tempfile.TemporaryDirectory() as folder:
        if path is None:
            command = [sys.executable, "-m", "maturin", "sdist", "--out", folder]
            subprocess.run(command, cwd=ROOT, check=True, stderr=subprocess.DEVNULL)
            (path,) = Path(folder).glob("*.tar.gz")
        files = archive(path)
    wanted = [
        r"PKG-INFO",
        r"pyproject\.toml",
        r"README\.md",
        r"Cargo\.lock",
        r"python/(Cargo\.toml|build\.rs)",
        r"python/src/lib\.rs",
        r"crates/concurrent-futures/src/lib\.rs",
        r"python/concurrent_futures/__init__\.py",
        r"python/concurrent_futures/py\.typed",
        r"python/concurrent_futures/_engine\.pyi",
        *LICENCES,
    ]
    yield from lacking(files, wanted)
    allowed = r"PKG-INFO|pyproject\.toml|README\.md|LICENSE-.*|Cargo\.(toml|lock)"
    allowed = rf"{allowed}|python/(Cargo\.toml|build\.rs)"
    sources = r"(python/src|python/concurrent_futures|crates/concurrent-futures)/.*"
    yield from superfluous(files, f"{allowed}|{sources}")
    yield from (f"{name} is built" for name in files if name.endswith((".so", ".pyd")))
    yield from metadata(files["PKG-INFO"]().decode())
    yield from places(files)


def wheels(path: Path) -> Iterator[str]:
    """Yields findings in a wheel: that of the package, or that of clusters."""
    files = wheel(path)
    package, native = "concurrent_futures", "_engine"
    if path.name.startswith("concurrent_futures_cluster-"):
        package, native = "concurrent_futures_cluster", "_native"
    info = rf"{package}-[^/]+\.dist-info"
    wanted = [
        rf"{package}/__init__\.py",
        rf"{package}/py\.typed",
        rf"{package}/{native}\.pyi",
        rf"{package}/{native}\..*\.(so|pyd)",
        *(rf"{info}/licenses/{name}" for name in LICENCES),
    ]
    yield from lacking(files, wanted)
    yield from superfluous(files, rf"{package}/.*\.(py|pyi|typed|so|pyd)|{info}/.*")
    yield from (f"{name} is a test" for name in files if re.search(r"(^|/)(test_|tests/)", name))
    built = [name for name in files if name.endswith((".so", ".pyd"))]
    if len(built) != 1:
        yield f"{len(built)} modules are built: {', '.join(built)}"
    for name in files:
        if re.fullmatch(rf"{info}/METADATA", name):
            yield from metadata(files[name]().decode())
    yield from places(files)


def metadata(text: str) -> Iterator[str]:
    """Yields the fields that a project's page on PyPI needs and lacks."""
    fields = [
        "Summary",
        "License-Expression",
        "License-File",
        "Keywords",
        "Classifier",
        "Requires-Python",
    ]
    for field in [*fields, "Project-URL", "Description-Content-Type", "Author"]:
        if not re.search(rf"^{field}: \S", text, re.MULTILINE):
            yield f"metadata without {field}"


def main() -> None:
    """Prints the findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--crate", action="store_true")
    parser.add_argument("--sdist", nargs="?", const=True)
    parser.add_argument("--wheel", nargs="+", default=[])
    arguments = parser.parse_args()
    checks: list[tuple[str, Iterator[str]]] = []
    if arguments.crate:
        checks.append(("crate", crate()))
    if arguments.sdist:
        checks.append(("sdist", sdist(None if arguments.sdist is True else Path(arguments.sdist))))
    checks += [(file, wheels(Path(file))) for file in arguments.wheel]
    failed = False
    for name, found in checks:
        for finding in found:
            failed = True
            print(f"{name}: {finding}")
    sys.exit(1 if failed or not checks else 0)


if __name__ == "__main__":
    main()
