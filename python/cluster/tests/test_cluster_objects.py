"""Long arguments and results in a folder beside the server."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from cluster_support import embedded_executor

from concurrent_futures_cluster import ClusterExecutor, ObjectStoreError

pytest_plugins = ["cluster_support"]

LONG = 2_000_000


def reverse(data: bytes) -> bytes:
    return data[::-1]


def count(folder: str, data: bytes) -> int:
    """Return the number of objects in the folder."""
    return sum(path.is_file() for path in Path(folder).rglob("*"))


def zeros(length: int) -> bytes:
    return bytes(length)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("CONCURRENT_FUTURES_OBJECT_STORE_ABOVE", "1000000")
    folder = tmp_path / "shared"
    folder.mkdir()
    return folder


@pytest.fixture
def executor(folder: Path) -> Iterator[ClusterExecutor]:
    try:
        executor = embedded_executor(object_store=folder.as_uri(), workers=1, by_value=[__name__])
    except ObjectStoreError as error:
        if "object-store" not in str(error):
            raise
        pytest.skip("the package is built without object stores; see `make cluster-object-store`")
    with executor:
        yield executor


def test_long_values_go_by_way_of_the_folder(executor: ClusterExecutor, folder: Path) -> None:
    data = bytes(range(250)) * (LONG // 250)
    assert executor.submit(count, str(folder), data).result() == 1
    assert executor.submit(reverse, data).result() == data[::-1]


def test_without_the_folder_the_error_names_it(executor: ClusterExecutor, folder: Path) -> None:
    folder.rmdir()
    with pytest.raises(ObjectStoreError, match="shared"):
        executor.submit(reverse, bytes(LONG)).result()
    with pytest.raises(ObjectStoreError, match="on the host"):
        executor.submit(zeros, LONG).result()


def test_a_folder_that_is_not_there_is_refused(tmp_path: Path) -> None:
    place = (tmp_path / "gone").as_uri()
    with pytest.raises(ObjectStoreError, match="gone"):
        embedded_executor(object_store=place, workers=1)
