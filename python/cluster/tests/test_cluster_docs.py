"""Tests that the examples of docstrings run, and the example of the README."""

import doctest
import inspect
import re

import pytest
from cluster_support import HERE, program_or_skip, run_program

import concurrent_futures_cluster

pytest_plugins = ["cluster_support"]

NAMES = concurrent_futures_cluster.__all__
MEMBERS = [
    f"{name}.{member}"
    for name in ("ClusterExecutor", "ClusterFuture", "ClusterHost")
    for member in vars(getattr(concurrent_futures_cluster, name))
    if not member.startswith("_")
]


@pytest.mark.parametrize("name", [*NAMES, *MEMBERS])
def test_examples_run(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = name.split(".")
    value = getattr(concurrent_futures_cluster, parts[0])
    for part in parts[1:]:
        value = inspect.getattr_static(value, part)
    text = inspect.getdoc(value)
    assert text, f"{name} has no docstring"
    if "ClusterExecutor(" in text:
        monkeypatch.setenv("CONCURRENT_FUTURES_NATS_SERVER", program_or_skip())
    monkeypatch.delenv("CONCURRENT_FUTURES_KEY", raising=False)
    test = doctest.DocTestParser().get_doctest(text, {}, name, None, 0)
    report: list[str] = []
    doctest.DocTestRunner().run(test, out=report.append)
    assert not report, "".join(report)


@pytest.mark.parametrize("page", ["README.md", "docs/cluster.md", "python/cluster/README.md"])
def test_programs_of_pages_run(page: str) -> None:
    path = HERE.parents[2] / page
    if not path.exists():
        pytest.skip("the repository is not there")
    blocks = re.findall(r"```python\n(.*?)```", path.read_text(), re.DOTALL)
    programs = [block for block in blocks if "ClusterExecutor(" in block]
    assert programs
    for program in programs:
        ended = run_program(program)
        assert ended.returncode == 0, ended.stderr
        said = re.findall(r"print\(.*# (.*)", program)
        assert ended.stdout.splitlines() == said
