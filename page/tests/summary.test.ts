import assert from "node:assert/strict";
import { test } from "node:test";
import { figures } from "../src/functions.ts";
import { sentence, summarize } from "../src/summary.ts";
import { sweep } from "../src/sweep.ts";
import { index, pools, type Row } from "./helpers.ts";

const MS = 1e6;
const S = 1e9;

const run = (worker: number, start: number, end: number, more: Row = {}): Row => ({
  task: 0, submit: start, start, end, name: "f", outcome: 2, worker, pool: 1, error: 0, attempt: 0, items: 1, sent: 0, received: 0, pickling: 0, ...more,
});

function said(rows: Row[], members: Record<string, unknown> = {}, waits: Row[] = []): string[] {
  const made = index(rows, members, waits);
  return summarize(made, figures(made)).map(sentence).map((text) => text.replaceAll("\u202f", " "));
}

const includes = (sentences: string[], wanted: RegExp) => assert.ok(sentences.some((it) => wanted.test(it)), `${wanted} is not in:\n${sentences.join("\n")}`);
const excludes = (sentences: string[], unwanted: RegExp) => assert.ok(!sentences.some((it) => unwanted.test(it)), `${unwanted} is in:\n${sentences.join("\n")}`);

test("an empty recording says so, and a running one that there is nothing yet", () => {
  assert.deepEqual(said([]), ["No task was submitted during the recording."]);
  assert.deepEqual(said([], { finished: false }), ["No task has been submitted since the recording began."]);
});

test("idle workers of processes with tiny tasks are advised a chunksize", () => {
  const rows = Array.from({ length: 4000 }, (_, i) => run((i % 2) + 1, i * 4000, i * 4000 + 3000, { submit: 0 }));
  includes(said(rows, pools(2, "processes")), /^Workers were idle 6[23] % of the time because tasks take 3 µs: raise chunksize/);
});

test("idle threads with tiny tasks are advised larger calls", () => {
  const rows = Array.from({ length: 4000 }, (_, i) => run(1, i * 10_000, i * 10_000 + 3000));
  includes(said(rows, pools(1)), /because tasks take 3 µs: do more in each call\.$/);
});

test("one task that ran while the others waited is named, and idleness is told with it alone", () => {
  const rows = [run(1, 0, 12 * S, { name: "slow" })];
  for (let worker = 2; worker <= 10; worker++) rows.push(run(worker, 0, S));
  const sentences = said(rows, pools(10));
  includes(sentences, /^One task \(slow\) ran 12 s while nine workers waited/);
  excludes(sentences, /idle/);
  includes(sentences, /^Workers were busy 18 % of the time\.$/);
});

test("one task after another is no straggler among workers that are used", () => {
  const rows = Array.from({ length: 50 }, (_, i) => run((i % 4) + 1, Math.floor(i / 4) * 10 * MS, (Math.floor(i / 4) + 1) * 10 * MS - 1));
  excludes(said(rows, pools(4)), /One task/);
});

test("more workers than ever run at once are named", () => {
  const rows = Array.from({ length: 40 }, (_, i) => run((i % 2) + 1, Math.floor(i / 2) * 10 * MS, (Math.floor(i / 2) + 1) * 10 * MS));
  const sentences = said(rows.map((row) => ({ ...row, submit: row.start })), pools(8));
  includes(sentences, /^Workers were idle 75 % of the time: no more than two of eight ever ran at once\.$/);
});

test("busy workers with a long queue are told", () => {
  const rows = Array.from({ length: 100 }, (_, i) => run((i % 2) + 1, Math.floor(i / 2) * 10 * MS, (Math.floor(i / 2) + 1) * 10 * MS, { submit: 0 }));
  const sentences = said(rows, pools(2));
  includes(sentences, /^All two workers were busy 9\d % of the time, with up to \d+ tasks waiting/);
  excludes(sentences, /idle/);
});

test("failures are counted by function, with the most frequent error", () => {
  const rows = Array.from({ length: 10 }, (_, i) => run(1, i, i + 1, i < 3 ? { outcome: 3, error: i < 2 ? "KeyError: 'a'" : "OSError" } : {}));
  includes(said(rows, pools(1)), /^3 of 10 calls of f failed, most often with 2 × KeyError: 'a'\.$/);
  const different = Array.from({ length: 3 }, (_, i) => run(1, i, i + 1, { outcome: 3, error: `KeyError: ${i}` }));
  includes(said(different, pools(1)), /^3 of 3 calls of f failed, all with KeyError\.$/);
  includes(said([run(1, 0, 1, { outcome: 3, error: "E" })], pools(1)), /^The only call of f failed, with E\.$/);
});

test("failures of many functions are one finding", () => {
  const rows = Array.from({ length: 12 }, (_, i) => run(1, i, i + 1, { name: `f${i % 4}`, outcome: 3, error: "E" }));
  const sentences = said(rows, pools(1));
  includes(sentences, /^12 calls of four functions failed, most often \(3\) those of f0, with E\.$/);
  assert.equal(sentences.filter((it) => /failed/.test(it)).length, 1);
});

test("deaths of workers come first, with their signal", () => {
  const members = pools(2, "processes") as { workers: Record<string, unknown>[] };
  members.workers[0].exit = { signal: 11 };
  members.workers[1].exit = { code: 0 };
  const sentences = said([run(1, 0, 1, { outcome: 6 }), run(2, 0, 1, { outcome: 3, error: "E" })], members);
  assert.match(sentences[0], /^1 worker process ended by signal 11 \(segmentation fault\)\.$/);
  includes(sentences, /^One task was lost because its worker process died\.$/);
});

test("time limits, cancellations, retries and missing events are told", () => {
  const rows = [run(1, 0, 1, { outcome: 7 }), run(1, 2, 3, { attempt: 1 }), run(0, NaN, 5, { outcome: 4 }), run(0, NaN, 5, { outcome: 4 })];
  const sentences = said(rows, { ...pools(1), dropped: 1200 });
  includes(sentences, /^One task passed its time limit and was killed\.$/);
  includes(sentences, /^2 tasks were cancelled before they started\.$/);
  includes(sentences, /^1 run repeated a task/);
  includes(sentences, /^1,200 events are missing/);
});

test("tasks that have not ended are told of a finished recording only", () => {
  const rows = [run(1, 0, NaN, { outcome: 1 })];
  includes(said(rows, pools(1)), /^One task still ran when the recording ended\.$/);
  excludes(said(rows, { ...pools(1), finished: false }), /still ran/);
});

test("tasks that wait for tasks are told", () => {
  const rows = [run(1, 0, 100 * MS, { task: 1 }), run(2, 0, 100 * MS, { task: 2 })];
  includes(said(rows, pools(2), [{ start: 10 * MS, end: 90 * MS, waiter: 1, awaited: 2 }]), /^Tasks spent 40 % of their time in waits for other tasks/);
});

test("a call that takes far longer than the others is told", () => {
  const rows = Array.from({ length: 30 }, (_, i) => run(1, i * MS, i * MS + 0.9 * MS));
  rows.push(run(1, 40 * MS, 80 * MS));
  includes(said(rows, pools(1)), /^The longest call of f took 40 ms; half of the calls took at most 900 µs\.$/);
});

test("expensive arguments are told", () => {
  includes(said([run(1, 0, 100 * MS, { pickling: 90 * MS })], pools(1, "processes")), /^Pickling the calls of f took 90 ms, the calls themselves 100 ms/);
  includes(said([run(1, 0, 100 * MS, { sent: 50 << 20 })], pools(1, "processes")), /^Each call of f sends and returns 50 MiB\.$/);
});

test("workers that start late are told", () => {
  includes(said([run(1, 2 * S, 3 * S, { submit: 0 })], pools(1, "processes")), /^The first task waited 2 s for a worker to start\.$/);
});

test("a pool that works well has no advice", () => {
  const rows = Array.from({ length: 40 }, (_, i) => run((i % 4) + 1, Math.floor(i / 4) * 10 * MS, (Math.floor(i / 4) + 1) * 10 * MS, { submit: Math.floor(i / 4) * 10 * MS }));
  assert.deepEqual(said(rows, pools(4)), ["Workers were busy 100 % of the time."]);
});

test("one of several pools is named", () => {
  const members = { pools: [{ name: "A" }, { name: "B" }], workers: [{ pool: 0, name: "a" }, { pool: 1, name: "b" }] };
  const sentences = said([run(1, 0, 10 * MS), run(2, 0, 10 * MS, { pool: 2 })], members);
  includes(sentences, /^A: Workers were busy/);
  includes(sentences, /^B: Workers were busy/);
});

test("the time of workers adds up", () => {
  const rows = [run(1, 0, 40), run(1, 60, 100, { submit: 50 }), run(2, 20, 30)];
  const made = index(rows, pools(3));
  const times = sweep(made, made.groups[0]);
  assert.deepEqual(
    [times.from, times.to, times.capacity, times.busy, times.idleQueued, times.idleEmpty, times.mostBusy, times.mostWorkers],
    [0, 100, 300, 90, 30, 180, 2, 3],
  );
  assert.deepEqual(times.lone, { from: 60, to: 100, idle: 2 });
});
