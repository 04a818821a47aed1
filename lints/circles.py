"""Checks which files of the Rust source import each other.

    python3 lints/circles.py           prints each circle, and each import that a rule forbids
    python3 lints/circles.py --list    prints what each file imports

An import is a `use` of an item of the same crate, or a path to one. It counts for the file that
defines the item, whichever module exports it again. Tests and models are left out.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: The crates, and the folders (or files) that must not import from others.
CRATES: dict[str, list[tuple[str, list[str]]]] = {
    "crates/concurrent-futures/src": [
        ("process/contract", ["process/pool", "process/worker"]),
        ("process/worker", ["process/pool"]),
        ("runtime", ["future", "thread", "process"]),
        ("future", ["thread", "process"]),
        ("thread", ["process"]),
    ],
    "crates/concurrent-futures-cluster/src": [
        ("bus", ["nats", "client", "host"]),
        ("wire", ["bus", "client", "host"]),
        ("host", ["nats", "client"]),
        ("client", ["nats", "host"]),
    ],
    "python/src": [
        ("interp", ["future", "thread", "process"]),
        ("future", ["thread", "process"]),
        ("thread", ["process"]),
    ],
    "python/cluster/src": [],
}

#: The most files that may import each other in a circle; they must be in one folder.
LARGEST_CIRCLE = 4

Path_ = tuple[str, ...]

#: For each file, the files that it imports, and the items of each.
Imports = dict[str, dict[str, set[str]]]


@dataclass
class Module:
    """A file, or a block in a file, by its path in the crate."""

    path: Path_
    file: str
    #: The items that it defines.
    items: set[str] = field(default_factory=set)
    #: The names that it imports or exports again, with the path of each.
    names: dict[str, Path_] = field(default_factory=dict)
    #: The modules that it exports all of.
    globs: list[Path_] = field(default_factory=list)
    #: Every path that it mentions.
    mentions: set[Path_] = field(default_factory=set)


class Crate:
    """The modules of a crate."""

    def __init__(self, folder: Path) -> None:
        """Read all files of a crate's `src`."""
        self.modules: dict[Path_, Module] = {}
        for file in sorted(folder.rglob("*.rs")):
            name = file.relative_to(folder).as_posix()
            if not is_test(name):
                self._read(file_path(name), name, without_comments(file.read_text()))

    def imports(self) -> Imports:
        """Return for each file the files that it imports, and the items of each."""
        found: Imports = {one.file: {} for one in self.modules.values()}
        for module in self.modules.values():
            for path in module.mentions:
                target = self._definition(path)
                if target is not None and target[0].file != module.file:
                    found[module.file].setdefault(target[0].file, set()).add(target[1])
        return found

    def _read(self, path: Path_, file: str, text: str) -> None:
        module = self.modules.setdefault(path, Module(path, file))
        for name, body in inner_modules(text):
            if name is not None:
                self._read((*path, name), file, body)
                text = text.replace(body, "", 1)
            else:
                text = text.replace(body, "", 1)
        for statement in re.findall(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+([^;]+);", text):
            for target, alias in expand(statement):
                absolute = self._absolute(path, target)
                if absolute is None:
                    continue
                if alias == "*":
                    module.globs.append(absolute)
                else:
                    module.names[alias] = absolute
                    module.mentions.add(absolute)
        rest = re.sub(r"\b(?:pub(?:\([^)]*\))?\s+)?use\s+[^;]+;", "", text)
        for target in re.findall(r"(?<![\w:$])(?:\$?crate|super|self)(?:::\w+)+", rest):
            absolute = self._absolute(path, tuple(target.replace("$", "").split("::")))
            if absolute is not None:
                module.mentions.add(absolute)
        # A path that begins with a module that was imported.
        for target in re.findall(r"(?<![\w:$])([a-z_]\w*(?:::\w+)+)", rest):
            parts = tuple(target.split("::"))
            if parts[0] in module.names:
                module.mentions.add((*module.names[parts[0]], *parts[1:]))
            elif (*path, parts[0]) in self.modules or parts[0] in declared(text):
                module.mentions.add((*path, *parts))
        module.items |= set(
            re.findall(
                r"\b(?:struct|enum|union|trait|type|fn|const|static|macro_rules!)\s+(?:mut\s+)?(\w+)",
                rest,
            )
        )

    def _absolute(self, here: Path_, target: Path_) -> Path_ | None:
        first, *rest = target
        if first == "crate":
            return tuple(rest)
        if first == "self":
            return (*here, *rest)
        if first == "super":
            while rest and rest[0] == "super":
                here, rest = here[:-1], rest[1:]
            return (*here[:-1], *rest)
        known = self.modules.get(here)
        if known is not None and first in known.names:
            return (*known.names[first], *rest)
        return None

    def _definition(self, path: Path_, depth: int = 0) -> tuple[Module, str] | None:
        """Find the module that defines what a path names."""
        if depth > 20:
            return None
        for cut in range(len(path), -1, -1):
            module = self.modules.get(path[:cut])
            if module is None:
                continue
            rest = path[cut:]
            if not rest:
                return module, "(the module)"
            if rest[0] in module.items:
                return module, rest[0]
            if rest[0] in module.names:
                return self._definition((*module.names[rest[0]], *rest[1:]), depth + 1)
            for glob in module.globs:
                found = self._definition((*glob, *rest), depth + 1)
                if found is not None:
                    return found
            return (module, rest[0]) if module.path else None
        return None


def declared(text: str) -> set[str]:
    """Return the names of the modules that a file declares."""
    return set(re.findall(r"\bmod\s+(\w+)\s*;", text))


def is_test(name: str) -> bool:
    """Tell whether a file belongs to tests only."""
    stem = name.rsplit("/", 1)[-1].removesuffix(".rs")
    return stem.endswith(("models", "tests")) or stem in {"fuzz", "model_memory", "sealed"}


def file_path(name: str) -> Path_:
    """Return the module path of a file: `a/b.rs`, `a/b/mod.rs` are `a::b`."""
    parts = name.removesuffix(".rs").split("/")
    if parts[-1] in {"mod", "lib", "main"}:
        parts = parts[:-1]
    return tuple(parts)


def without_comments(text: str) -> str:
    """Remove comments, and what is in strings."""
    pattern = r'//[^\n]*|/\*.*?\*/|b?"(?:\\.|[^"\\])*"|b?\'(?:\\.|[^\'\\])\''
    return re.sub(pattern, lambda found: '""' if '"' in found[0][:2] else " ", text, flags=re.S)


def inner_modules(text: str) -> Iterator[tuple[str | None, str]]:
    """Yield the modules written in a file with their text; those of tests without a name."""
    for start in re.finditer(
        r"((?:#\[[^\]]*\]\s*)*)(?:pub(?:\([^)]*\))?\s+)?mod\s+(\w+)\s*\{", text
    ):
        depth, end = 1, start.end()
        while depth and end < len(text):
            depth += {"{": 1, "}": -1}.get(text[end], 0)
            end += 1
        for_tests = re.search(r"cfg\((?:all\()?(?:any\()?(?:test|fuzzing)", start[1])
        yield (None if for_tests else start[2]), text[start.end() : end - 1]


def expand(statement: str) -> Iterator[tuple[Path_, str]]:
    """Yield the paths of a `use` statement, each with the name that it gets."""
    statement = re.sub(r"\s+", " ", statement.strip())
    yield from _expand((), statement)


def _expand(before: Path_, tree: str) -> Iterator[tuple[Path_, str]]:
    tree = tree.strip()
    if "{" in tree:
        head, _, rest = tree.partition("{")
        path = (*before, *[part for part in head.strip(": ").split("::") if part])
        for branch in branches(rest.rpartition("}")[0]):
            yield from _expand(path, branch)
        return
    name, _, alias = tree.partition(" as ")
    parts = (*before, *[part for part in name.strip().split("::") if part])
    if parts[-1] == "*":
        yield parts[:-1], "*"
    elif parts[-1] == "self" and len(parts) > 1:
        yield parts[:-1], alias.strip() or parts[-2]
    else:
        yield parts, alias.strip() or parts[-1]


def branches(text: str) -> Iterator[str]:
    """Yield the parts of a list that commas separate, braces kept whole."""
    depth, start = 0, 0
    for at, sign in enumerate(text):
        depth += {"{": 1, "}": -1}.get(sign, 0)
        if sign == "," and depth == 0:
            yield text[start:at]
            start = at + 1
    if text[start:].strip():
        yield text[start:]


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Return the groups of nodes that all reach each other (Tarjan's algorithm)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(node: str) -> None:
        index[node] = low[node] = len(index)
        stack.append(node)
        for other in sorted(graph[node]):
            if other not in index:
                visit(other)
                low[node] = min(low[node], low[other])
            elif other in stack:
                low[node] = min(low[node], index[other])
        if low[node] == index[node]:
            at = stack.index(node)
            group = stack[at:]
            del stack[at:]
            if len(group) > 1:
                found.append(sorted(group))

    for node in graph:
        if node not in index:
            visit(node)
    return found


def folder(file: str) -> str:
    """Return the folder of a file, or the file itself if it stands beside `lib.rs`."""
    return file.rpartition("/")[0] or file


def is_around(one: str, other: str) -> bool:
    """Tell whether two folders are the same, or one of them is inside the other."""
    return one == other or one.startswith(f"{other}/") or other.startswith(f"{one}/")


def is_in(file: str, place: str) -> bool:
    """Tell whether a file is a place, or in it."""
    return file in {place, f"{place}.rs"} or file.startswith(f"{place}/")


def faults(
    imports: dict[str, dict[str, set[str]]], rules: list[tuple[str, list[str]]]
) -> list[str]:
    """Return the imports that break a rule."""
    said = []
    # `lib.rs` and `mod.rs` only put things together: nothing imports what they define.
    graph = {file: set(others) for file, others in imports.items()}
    for circle in circles(graph):
        folders = {folder(file) for file in circle}
        if len(circle) > LARGEST_CIRCLE:
            said.append(f"a circle of {len(circle)} files: {' '.join(circle)}")
        elif len(folders) > 1:
            said.append(f"a circle across folders: {' '.join(circle)}")
    between: dict[str, set[str]] = {folder(file): set() for file in graph}
    for file, others in graph.items():
        between[folder(file)] |= {
            folder(other) for other in others if not is_around(folder(file), folder(other))
        }
    said += [f"a circle of folders: {' '.join(circle)}" for circle in circles(between)]
    for place, forbidden in rules:
        for file, others in imports.items():
            for other, items in others.items():
                if is_in(file, place) and any(is_in(other, one) for one in forbidden):
                    names = ", ".join(sorted(items))
                    said.append(f"{file} imports {names} of {other}: {place} must not")
    return said


def main() -> int:
    """Check all crates."""
    failed = False
    for name, rules in CRATES.items():
        imports = Crate(ROOT / name).imports()
        if "--list" in sys.argv:
            for file, others in imports.items():
                for other, items in sorted(others.items()):
                    print(f"{name}/{file} -> {other}: {', '.join(sorted(items))}")
        for fault in faults(imports, rules):
            failed = True
            print(f"{name}: {fault}")
        largest = max(
            map(len, circles({one: set(all_) for one, all_ in imports.items()})), default=1
        )
        print(f"{name}: {len(imports)} files, the largest circle has {largest}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
