"""Finds sentences that break the rules for prose in CONTRIBUTING.md.

Reads the documentation, the comments and the names of tests of all files that git knows. A file
is one of Rust, Python (with stubs), Markdown, TOML, YAML or shell, or a makefile. Prints each
place with advice, and exits with 1 if there is any. ``--count`` prints the number of findings per
file instead.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tokenize
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent

# Texts of others, word for word.
LEFT_OUT = {"LICENSE-APACHE", "LICENSE-MIT"}


# The most words that a sentence may have.
LONGEST = 25


class Rule(NamedTuple):
    """A pattern, and how to put a sentence right that the pattern matches."""

    pattern: re.Pattern[str]
    advice: str


# For the beginning of a sentence.
BEGINNINGS = [
    Rule(
        re.compile(r"(Who|Whoever|Whose|Whom|What|Whatever|That which)\b", re.IGNORECASE),
        'name the actor or the thing: "The thread that…", "Returns the…", "The values that…"',
    ),
    Rule(
        re.compile(r"(Nobody|No one|Somebody|Someone|Every(one|body)|Others'?)\b", re.IGNORECASE),
        'name the actor: "No other thread…", "The waiting threads…"',
    ),
    Rule(
        re.compile(r"(Everything|Anything|All) that\b", re.IGNORECASE),
        'name the things: "The checks that…", "All calls that…"',
    ),
    Rule(
        re.compile(r"So (many|much|long)\b|How\b(?! to\b)", re.IGNORECASE),
        'name the quantity or the way: "Number of…", "Time limit of…", "Consecutive failures…"',
    ),
    Rule(
        re.compile(r"Ha(s|ve)\b", re.IGNORECASE),
        'say what the code does: "Kills…", "Wakes…"; of a condition: "Returns whether…"',
    ),
]

# For the beginning of the first sentence of documentation.
SUMMARIES = [
    Rule(
        re.compile(r"(It|Its|They|There|This is|Is|Are|Was|Were|Which|Where)\b", re.IGNORECASE),
        'begin with a third-person verb or a noun phrase: "No packet yet", "Name of the file"',
    ),
]

# For the same in Rust. (Python's docstrings may say "Return the", as those of its own library do.)
RUST_SUMMARIES = [
    Rule(
        re.compile(
            r"(Add|Begin|Call|Check|Create|Do|Drop|End|Find|Get|Give|Keep|Let|Look|Make|Move|Push|Put|Read|"
            r"Receive|Remove|Return|Run|Send|Start|Stop|Store|Submit|Take|Tell|Wait|Wake|Write|Yield)"
            r" (a|all|an|any|at|back|each|every|for|its|nothing|one|that|the|this|until|whether)\b"
        ),
        'use the third person: "Returns the…", "Takes back…"',
    ),
]

# For any place in a sentence.
WORDS = [
    Rule(
        re.compile(
            r"\b(nobody|somebody|someone|anybody|anyone|everybody|everyone|no one)\b(?!-)",
            re.IGNORECASE,
        ),
        'name the actor: "no other thread", "the caller", "all waiting threads"',
    ),
]


class Line(NamedTuple):
    """One line of prose: the number of the line in its file, and its text without markers."""

    number: int
    text: str


class Block(NamedTuple):
    """Consecutive lines of prose, and whether they are the documentation of an item."""

    lines: list[Line]
    documents: bool = False


class Sentence(NamedTuple):
    """A sentence, with the number of its first line."""

    number: int
    text: str


class Finding(NamedTuple):
    """A sentence that breaks a rule."""

    number: int
    sentence: str
    advice: str


RUST_TOKEN = re.compile(
    r"""
    (?P<comment> //[^\n]* | /\*.*?\*/ )
    | b?r(?P<hashes>\#*)".*?"(?P=hashes)
    | b?c?"(?:\\.|[^"\\])*"
    | b?'(?:\\[^\n]+?|[^'\\\n])'
    """,
    re.VERBOSE | re.DOTALL,
)


def rust(source: str) -> Iterator[Block]:
    """Yields the blocks of comments in Rust code: comments on consecutive lines are one block."""
    block: list[Line] = []
    kind = ""
    for match in RUST_TOKEN.finditer(source):
        comment = match["comment"]
        if comment is None:
            continue
        number = source.count("\n", 0, match.start()) + 1
        marker = re.match(r"/\*[*!]?|//[/!]?", comment)[0]  # type: ignore[index]
        before = source[source.rfind("\n", 0, match.start()) + 1 : match.start()]
        follows = block and number == block[-1].number + 1 and marker == kind and not before.strip()
        if block and not follows:
            yield Block(block, len(kind) == 3)
            block = []
        kind = marker
        text = comment.removeprefix(marker).removesuffix("*/")
        block += [Line(number + i, line.strip()) for i, line in enumerate(text.split("\n"))]
    if block:
        yield Block(block, len(kind) == 3)


def python(source: str) -> Iterator[Block]:
    """Yields the docstrings and the blocks of comments in Python code."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            text = node.value.value
            if isinstance(text, str):
                yield Block(docstring(node.lineno, text.split("\n")), True)
    comments = (
        (Line(token.start[0], token.string.lstrip("#: ").strip()), token.line[: token.start[1]])
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    )
    yield from consecutive(comments)


def docstring(number: int, texts: list[str]) -> list[Line]:
    """Returns the lines of a docstring, without code.

    Indented code behind an empty line is left out, and so is an example: the lines from ``>>>`` to
    the next empty line.
    """
    indents = [len(text) - len(text.lstrip()) for text in texts[1:] if text.strip()]
    code = " " * (min(indents, default=0) + 4)
    lines: list[Line] = []
    in_example = False
    for position, text in enumerate(texts):
        in_example = text.strip() != "" and (in_example or text.lstrip().startswith(">>>"))
        is_code = lines and not lines[-1].text and text.startswith(code)
        is_underline = text.strip() != "" and set(text.strip()) == {"-"}
        left_out = is_code or in_example or is_underline
        lines.append(Line(number + position, "" if left_out else text.strip()))
    return lines


def hashes(source: str) -> Iterator[Block]:
    """Yields the blocks of lines that are comments by ``#``, or that end in one."""
    lines = (
        (Line(number, match[2].strip()), match[1])
        for number, line in enumerate(source.split("\n"), 1)
        if (match := re.search(r"^(.*?\s)??#+ (.*)", line))
    )
    yield from consecutive(lines)


def markdown(source: str) -> Iterator[Block]:
    """Yields the whole text."""
    yield Block([Line(number, line.strip()) for number, line in enumerate(source.split("\n"), 1)])


def consecutive(comments: Iterable[tuple[Line, str | None]]) -> Iterator[Block]:
    """Yields the runs of comments without a line between; a comment behind code begins a block."""
    block: list[Line] = []
    for line, before in comments:
        if block and (line.number != block[-1].number + 1 or (before and before.strip())):
            yield Block(block)
            block = []
        block.append(line)
    if block:
        yield Block(block)


READERS = {
    ".rs": rust,
    ".py": python,
    ".pyi": python,
    ".md": markdown,
    ".toml": hashes,
    ".sh": hashes,
    ".yml": hashes,
    "": hashes,
}

TEST = re.compile(r"(?:#\[test\]\s+fn |def test_)((?:who|whoever|whose|what|whatever|so_many)_\w+)")

# The marks of a heading, a list item, a table row, a quotation.
MARK = re.compile(r"^(?:#+\s+|[-*+]\s+|\d+[.)]\s+|>\s+|\|\s*)")
# Marks around words that do not change what the words are: emphasis, links, code. A quotation mark
# is none of them: a quotation may break the rules.
DECORATION = re.compile(r"^[*_`\[(]+")
# The space between two sentences on one line.
END = re.compile(r"(?:(?<=[.!?])|(?<=[.!?][)\"'*`])|(?<=[.!?]\*\*)) (?=[*_`\[(\"]*[A-Z`])")


def sentences(block: Block) -> Iterator[Sentence]:
    """Yields the sentences of a block.

    A paragraph, a heading, a list item and a table cell begin sentences, and end those before them.
    Fenced code is left out.
    """
    fenced = False
    number = 0
    parts: list[str] = []

    def end() -> Iterator[Sentence]:
        """Yields the sentence that the collected parts make."""
        if parts:
            yield Sentence(number, " ".join(parts))
            parts.clear()

    for here, text in block.lines:
        if text.startswith(("```", "~~~")):
            fenced = not fenced
            yield from end()
            continue
        if fenced or not text:
            yield from end()
            continue
        heading = text.startswith("# ") or text.startswith("##")
        while mark := MARK.match(text):
            yield from end()
            text = text[mark.end() :]
        text = re.sub(r"^(SAFETY|ORDERING|TODO|NOTE): ", "", text)
        for position, cell in enumerate(re.split(" [|·] ", text.removesuffix(" |"))):
            if position > 0:
                yield from end()
            for part in re.split(END, cell):
                number = number if parts else here
                parts.append(part)
                if re.search(r"[.!?][)\"'*`]*$", part):
                    yield from end()
        if heading or text.endswith("|"):
            yield from end()
    yield from end()


def words(sentence: str) -> int:
    """Returns the number of words; code, and a link with its text in code, is one word."""
    plain = re.sub(r"\]\([^)]*\)", "]", re.sub(r"`[^`]*`", "code", sentence))
    return len(re.findall(r"\w[\w'’./,-]*", plain))


def findings(source: str, suffix: str, longest: int = LONGEST) -> Iterator[Finding]:
    """Yields the sentences of a file that break a rule."""
    for block in READERS[suffix](source):
        for position, (number, sentence) in enumerate(sentences(block)):
            rules = BEGINNINGS
            if block.documents and position == 0:
                rules = BEGINNINGS + SUMMARIES + (RUST_SUMMARIES if suffix == ".rs" else [])
            first, *others = re.split(r"(?<=:) (?=[*_`\[(]*[A-Z])", sentence)
            for rule in rules:
                if rule.pattern.match(DECORATION.sub("", first)):
                    yield Finding(number, sentence, rule.advice)
            for rule in BEGINNINGS:
                if any(rule.pattern.match(DECORATION.sub("", other)) for other in others):
                    yield Finding(number, sentence, rule.advice)
            for rule in WORDS:
                if rule.pattern.search(re.sub(r"`[^`]*`|\"[^\"]*\"", "", sentence)):
                    yield Finding(number, sentence, rule.advice)
            if words(sentence) > longest:
                yield Finding(number, sentence, f"{words(sentence)} words: one idea a sentence")
    for match in TEST.finditer(source) if suffix in (".rs", ".py") else ():
        number = source.count("\n", 0, match.start(1)) + 1
        yield Finding(number, match[1], "name the test by its actor and the behaviour")


def tracked() -> list[Path]:
    """Returns the files that git knows and that a reader here understands."""
    names = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.splitlines()
    paths = [ROOT / name for name in names if name not in LEFT_OUT]
    return [path for path in paths if path.suffix in READERS and path.is_file()]


def main(arguments: list[str] | None = None) -> int:
    """Checks the files given, or all, and returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--count", action="store_true", help="print the findings per file")
    parser.add_argument(
        "--longest", type=int, default=LONGEST, help="words that a sentence may have"
    )
    parser.add_argument("files", nargs="*", type=Path, help="default: all that git knows")
    options = parser.parse_args(arguments)

    found: Counter[Path] = Counter()
    for path in options.files or tracked():
        name = path.resolve().relative_to(ROOT) if path.resolve().is_relative_to(ROOT) else path
        for finding in findings(path.read_text(encoding="utf-8"), path.suffix, options.longest):
            found[name] += 1
            if not options.count:
                print(f"{name}:{finding.number}: {finding.sentence[:80]}\n    {finding.advice}")
    if options.count:
        for name, number in found.most_common():
            print(f"{number:4} {name}")
    if found:
        print(f"{found.total()} sentences break the rules for prose; see CONTRIBUTING.md")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
