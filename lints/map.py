"""Checks the map of files in ARCHITECTURE.md, and the names of files in all pages.

The map lists the files of the engine and of the Python module between two markers;
``--write`` writes it. Each line has the first sentence of the file's module documentation, and
says whether the file contains ``unsafe``. Prints the differences, and exits with 1 if there are
any.
"""

import argparse
import difflib
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import prose

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "ARCHITECTURE.md"
FOLDERS = [
    "crates/concurrent-futures/src",
    "crates/concurrent-futures-cluster/src",
    "python/src",
    "python/cluster/src",
]
BEGIN = "<!-- map: written by `python3 lints/map.py --write` -->"
END = "<!-- end of map -->"
UNSAFE = re.compile(r"\bunsafe\b(?!_)")


def summary(source: str, folder: Path = ROOT) -> str:
    """Returns the first sentence of a file's module documentation, without the full stop.

    The documentation may be a page in the same folder; then the sentence is that below the heading.
    """
    lines: list[str] = []
    if page := re.match(r'#!\[doc = include_str!\("(.+)"\)\]', source):
        text = (folder / page[1]).read_text(encoding="utf-8")
        paragraph = next(part for part in text.split("\n\n") if not part.startswith("#"))
        source = re.sub(r"^", "//! ", paragraph, flags=re.MULTILINE)
    for line in source.split("\n"):
        if not line.startswith("//!") or not line[3:].strip():
            break
        lines.append(line[3:].strip())
    text = re.sub(r"\[(`[^`]*`)\](\([^)]*\))?", r"\1", " ".join(lines))
    return re.split(r"(?<=[.!?]) |\.$", text, maxsplit=1)[0].removesuffix(".")


def has_unsafe(source: str) -> bool:
    """Returns whether code, and not only a comment or a string, contains ``unsafe``."""
    code = prose.RUST_TOKEN.sub(" ", source)
    return UNSAFE.search(code) is not None


def paths(folder: Path) -> list[Path]:
    """Returns the files below a folder: those of a folder before those of its subfolders."""

    def key(path: Path) -> tuple[object, ...]:
        *folders, name = path.relative_to(folder).parts
        first = name not in ("lib.rs", "mod.rs")
        return (*((1, part) for part in folders), (0, first, name))

    return sorted(folder.rglob("*.rs"), key=key)


def lines() -> Iterator[str]:
    """Yields the lines of the map."""
    yield "```text"
    for name in FOLDERS:
        yield f"{name}/"
        shown: tuple[str, ...] = ()
        for path in paths(ROOT / name):
            *folders, file = path.relative_to(ROOT / name).parts
            if tuple(folders) != shown:
                shown = tuple(folders)
                yield f"  {'/'.join(folders)}/"
            source = path.read_text(encoding="utf-8")
            mark = "unsafe" if has_unsafe(source) else ""
            indent = "    " if folders else "  "
            yield f"{indent + file:<26} {mark:<6}  {summary(source, path.parent)}".rstrip()
    yield "```"


def missing() -> Iterator[str]:
    """Yields the files that a page names, in backquotes, and that git does not know."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    )
    files = listed.stdout.split("\n")
    for page in [
        name for name in files if name.endswith(".md") and not name.startswith("examples")
    ]:
        text = (ROOT / page).read_text(encoding="utf-8")
        for match in re.finditer(r"`([\w./-]+\.(?:rs|pyi?|md))`", text):
            if not any(f"/{name}".endswith(f"/{match[1]}") for name in files):
                yield f"{page}:{text.count(chr(10), 0, match.start()) + 1}: no file {match[1]}"


def main(arguments: list[str] | None = None) -> int:
    """Compares or writes the map, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--write", action="store_true", help="write the map into ARCHITECTURE.md")
    options = parser.parse_args(arguments)

    page = PAGE.read_text(encoding="utf-8")
    before, begin, rest = page.partition(BEGIN + "\n")
    there, end, after = rest.partition(END)
    if not begin or not end:
        print(f"{PAGE.name} lacks the markers of the map: {BEGIN} and {END}")
        return 1
    wanted = "".join(f"{line}\n" for line in lines())
    if options.write:
        PAGE.write_text(before + begin + wanted + end + after, encoding="utf-8")
        return 0
    differences = difflib.unified_diff(
        there.splitlines(), wanted.splitlines(), PAGE.name, "the files", n=0, lineterm=""
    )
    found = list(differences)
    if found:
        print("\n".join(found))
        print("the map in ARCHITECTURE.md is out of date: run `python3 lints/map.py --write`")
    unknown = list(missing())
    print(*unknown, sep="\n", end="\n" if unknown else "")
    return 1 if found or unknown else 0


if __name__ == "__main__":
    sys.exit(main())
