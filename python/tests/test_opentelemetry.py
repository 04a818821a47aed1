"""Spans and metrics of OpenTelemetry, by its real library."""

from __future__ import annotations

import concurrent.futures
import gc
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import concurrent_futures as cf
from support import LIMIT, held, needs_processes

pytest.importorskip("opentelemetry.sdk", reason="opentelemetry-sdk is not installed")

from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    SimpleSpanProcessor,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from concurrent_futures.opentelemetry import TracedExecutor, traced


class FileExporter(SpanExporter):  # type: ignore[misc]
    """Writes a line for each span: worker processes have no other way out."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def export(self, spans: Any) -> Any:
        with self._path.open("a") as file:
            for span in spans:
                parent = span.parent
                line = {
                    "name": span.name,
                    "trace": span.context.trace_id,
                    "id": span.context.span_id,
                    "parent": parent.span_id if parent else None,
                    "is_remote": bool(parent and parent.is_remote),
                    "status": span.status.status_code.name,
                    "events": [event.name for event in span.events],
                    "attributes": dict(span.attributes),
                    "pid": os.getpid(),
                }
                file.write(json.dumps(line) + "\n")
        return SpanExportResult.SUCCESS


def set_up(path: Path) -> None:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(FileExporter(path)))
    trace.set_tracer_provider(provider)


class Spans:
    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.tracer = self.provider.get_tracer("test")
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])

    def traced(self, executor: Any) -> TracedExecutor:
        return traced(executor, tracer_provider=self.provider, meter_provider=self.meters)

    def named(self, name: str) -> list[Any]:
        return [span for span in self.exporter.get_finished_spans() if span.name == name]

    def metrics(self) -> dict[str, dict[tuple[Any, ...], Any]]:
        data = self.reader.get_metrics_data()
        found: dict[str, dict[tuple[Any, ...], Any]] = {}
        for resource in data.resource_metrics if data else []:
            for metric in resource.scope_metrics[0].metrics:
                points = found.setdefault(metric.name, {})
                for point in metric.data.data_points:
                    attributes = dict(point.attributes)
                    kind = attributes.pop("concurrent_futures.executor.type")
                    attributes.pop("concurrent_futures.executor.id")
                    points[(kind, *attributes.values())] = point.value
        return found


@pytest.fixture
def spans() -> Iterator[Spans]:
    spans = Spans()
    yield spans
    spans.meters.shutdown()


def answer(n: int) -> int:
    return n + 1


def fail(n: int) -> None:
    raise ValueError(n)


def nested(pool: TracedExecutor) -> int:
    return pool.submit(answer, 1).result(LIMIT)


@pytest.mark.parametrize(
    "kind", [cf.ThreadPoolExecutor, concurrent.futures.ThreadPoolExecutor], ids=["ours", "standard"]
)
def test_spans_of_threads_are_under_those_of_their_submitters(spans: Spans, kind: Any) -> None:
    with spans.traced(kind(2)) as pool:
        with spans.tracer.start_as_current_span("request") as request:
            assert pool.submit(nested, pool).result(LIMIT) == 2
            assert list(pool.map(answer, [10, 20])) == [11, 21]
            assert isinstance(pool.submit(fail, 3).exception(LIMIT), ValueError)
        pool.submit(answer, 5).result(LIMIT)
    (outer,) = spans.named("nested")
    inner, first, second, alone = spans.named("answer")
    (failed,) = spans.named("fail")
    parent = request.get_span_context()
    for span in (outer, first, second, failed):
        assert span.parent.span_id == parent.span_id
    assert inner.parent.span_id == outer.context.span_id
    assert {span.context.trace_id for span in (outer, inner, first, failed)} == {parent.trace_id}
    assert alone.parent is None
    assert failed.status.status_code is trace.StatusCode.ERROR
    assert [event.name for event in failed.events] == ["exception"]
    assert outer.status.status_code is trace.StatusCode.UNSET
    assert outer.attributes["code.function.name"] == "test_opentelemetry.nested"
    assert outer.attributes["concurrent_futures.task.queue_time"] >= 0


@needs_processes
def test_spans_of_worker_processes_have_a_remote_parent(spans: Spans, tmp_path: Path) -> None:
    path = tmp_path / "spans"
    executor = cf.ProcessPoolExecutor(1, initializer=set_up, initargs=(path,))
    with spans.traced(executor) as pool, spans.tracer.start_as_current_span("request") as request:
        assert pool.submit(answer, 1).result(LIMIT) == 2
        assert isinstance(pool.submit(fail, 3).exception(LIMIT), ValueError)
        assert list(pool.map(answer, range(3))) == [1, 2, 3]
        assert pool.options(timeout=LIMIT).submit(answer, 5).result(LIMIT) == 6
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["name"] for line in lines] == ["answer", "fail", *["answer"] * 4]
    parent = request.get_span_context()
    for line in lines:
        assert (line["trace"], line["parent"]) == (parent.trace_id, parent.span_id)
        assert line["is_remote"]
        assert line["pid"] != os.getpid()
    assert [line["status"] for line in lines[:2]] == ["UNSET", "ERROR"]
    assert lines[1]["events"] == ["exception"]
    assert len({line["id"] for line in lines}) == 6


def test_figures_are_metrics(spans: Spans) -> None:
    with spans.traced(cf.ThreadPoolExecutor(1)) as pool:
        pool.submit(answer, 1).result(LIMIT)
        pool.submit(fail, 1).exception(LIMIT)
        with held(pool):
            assert pool.submit(answer, 2).cancel()
            pending = pool.submit(answer, 3)
            metrics = spans.metrics()
        pending.result(LIMIT)
    kind = "ThreadPoolExecutor"
    prefix = "concurrent_futures.executor"
    assert metrics[f"{prefix}.task.count"] == {(kind, "pending"): 1, (kind, "running"): 1}
    assert metrics[f"{prefix}.task.ended"] == {
        (kind, "finished"): 1,
        (kind, "failed"): 1,
        (kind, "cancelled"): 1,
    }
    assert metrics[f"{prefix}.worker.count"] == {(kind,): 1}
    assert metrics[f"{prefix}.worker.restarts"] == {(kind,): 0}
    assert metrics[f"{prefix}.busy.time"][(kind,)] > 0
    del pool, pending
    gc.collect()
    assert not any(spans.metrics().values())


def test_a_traced_executor_is_the_other_one_otherwise(spans: Spans) -> None:
    executor = cf.ThreadPoolExecutor(1)
    with spans.traced(executor) as pool:
        assert isinstance(pool, cf.Executor)
        assert pool.stats().workers == 0
        assert repr(pool) == f"<TracedExecutor of {executor!r}>"
        assert pool.options(label="one").submit(answer, 1).result(LIMIT) == 2
        with pytest.raises(AttributeError):
            pool.none  # noqa: B018
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(answer, 1)
