"""Compares facts that stand in several files: names, versions, licences, tools.

Cargo.toml is the source of the repository's address, the version and the oldest Rust. Prints each
disagreement, and exits with 1 if there is any. ``--tag v1.2.3`` also compares the tag of a release.
"""

import argparse
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
CRATE = ROOT / "crates/concurrent-futures"
CLUSTER = ROOT / "python/cluster"

ADDRESS = re.compile(r"https://github\.com/[\w.-]+/concurrent-futures\b")
ACTION = re.compile(r"uses: (\S+)")
FULL_VERSION = re.compile(r"[\w./-]+@v\d+\.\d+\.\d+")


def load(path: Path) -> dict:
    """Returns the contents of a TOML file."""
    return tomllib.loads(path.read_text())


def texts() -> Iterator[tuple[str, str]]:
    """Yields the name and the text of each text file that git knows or would add."""
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.check_output(command, cwd=ROOT, text=True).split("\0")
    for name in filter(None, names):
        try:
            yield name, (ROOT / name).read_text()
        except (UnicodeDecodeError, FileNotFoundError, IsADirectoryError):
            continue


def addresses(repository: str) -> Iterator[str]:
    """Yields each address of the repository that has another organisation."""
    for name, text in texts():
        for number, line in enumerate(text.splitlines(), 1):
            for found in ADDRESS.findall(line):
                if found != repository:
                    yield f"{name}:{number}: {found}, but Cargo.toml has {repository}"


def required(crate: dict, project: dict) -> Iterator[str]:
    """Yields each field without which a package looks unfinished in its registry."""
    fields = [
        "description",
        "repository",
        "homepage",
        "documentation",
        "readme",
        "keywords",
        "categories",
    ]
    for field in fields:
        if not crate.get(field):
            yield f"crates/concurrent-futures/Cargo.toml: no {field}"
    if len(crate["keywords"]) > 5:
        yield "crates/concurrent-futures/Cargo.toml: crates.io takes five keywords at most"
    for field in ["description", "readme", "authors", "keywords", "classifiers", "urls"]:
        if not project.get(field):
            yield f"pyproject.toml: no {field}"


def licences() -> Iterator[str]:
    """Yields each licence of a package that is not the project's, word for word."""
    for folder in [CRATE, CLUSTER]:
        for name in ["LICENSE-APACHE", "LICENSE-MIT"]:
            copy = folder / name
            if not copy.is_file() or copy.read_bytes() != (ROOT / name).read_bytes():
                yield f"{copy.relative_to(ROOT)}: not a copy of {name}"


def pins(project: dict, version: str) -> Iterator[str]:
    """Yields each of the two Python packages that does not ask for the other one's version."""
    extra = project["optional-dependencies"]["cluster"]
    if f"concurrent-futures-cluster=={version}" not in extra:
        yield f"pyproject.toml: the extra `cluster` is not version {version}"
    needed = load(CLUSTER / "pyproject.toml")["project"]["dependencies"]
    if f"concurrent-futures=={version}" not in needed:
        yield f"python/cluster/pyproject.toml: does not depend on version {version}"


def workflows(project: dict) -> Iterator[str]:
    """Yields actions without a full version, and CPythons that only one of two files names."""
    for path in sorted((ROOT / ".github/workflows").glob("*.yml")):
        for action in ACTION.findall(path.read_text()):
            if not FULL_VERSION.fullmatch(action):
                yield f"{path.relative_to(ROOT)}: {action} has no full version"
    tested = set(re.findall(r'"(3\.\d+)"', (ROOT / ".github/workflows/ci.yml").read_text()))
    prefix = "Programming Language :: Python :: 3."
    named = {c.removeprefix(prefix[:-2]) for c in project["classifiers"] if c.startswith(prefix)}
    if tested != named:
        yield f"pyproject.toml: classifiers for {sorted(named)}, but CI tests {sorted(tested)}"


def tools() -> Iterator[str]:
    """Yields each tool that has one version before a commit and another in the tests."""
    wanted = (ROOT / "python/requirements-test.txt").read_text()
    hooks = (ROOT / ".pre-commit-config.yaml").read_text()
    ruff = re.search(r"^ruff==(\S+)", wanted, re.MULTILINE)
    if ruff and f"rev: v{ruff[1]}\n" not in hooks:
        yield f".pre-commit-config.yaml: ruff is not {ruff[1]}, as in python/requirements-test.txt"


def release(tag: str, version: str) -> Iterator[str]:
    """Yields the facts that keep a tag from being a release."""
    if tag != f"v{version}":
        yield f"tag {tag}, but Cargo.toml has version {version}"
    if not re.search(rf"^## {re.escape(version)}\b", (ROOT / "CHANGELOG.md").read_text(), re.M):
        yield f"CHANGELOG.md: no version {version}"


def findings(tag: str | None) -> Iterator[str]:
    """Yields all disagreements."""
    workspace = load(ROOT / "Cargo.toml")["workspace"]["package"]
    own = load(CRATE / "Cargo.toml")["package"]
    inherited = {
        name: workspace[name]
        for name, value in own.items()
        if isinstance(value, dict) and value.get("workspace")
    }
    project = load(ROOT / "pyproject.toml")["project"]
    yield from addresses(workspace["repository"])
    yield from required(own | inherited, project)
    yield from licences()
    yield from pins(project, workspace["version"])
    yield from workflows(project)
    yield from tools()
    rust = f"Rust {workspace['rust-version']}"
    if rust not in (ROOT / "README.md").read_text():
        yield f"README.md: does not say {rust}"
    if tag:
        yield from release(tag, workspace["version"])


def main() -> None:
    """Prints the findings."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tag")
    found = list(findings(parser.parse_args().tag))
    for finding in found:
        print(finding)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
