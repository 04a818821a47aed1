import assert from "node:assert/strict";
import { test } from "node:test";
import { describe } from "../src/card.ts";
import { figures } from "../src/functions.ts";
import { Index } from "../src/index.ts";
import { place } from "../src/layout.ts";
import { paint } from "../src/raster.ts";
import { search } from "../src/search.ts";
import { LEVELS, type Pixels } from "../src/theme.ts";
import { nearest } from "../src/timeline.ts";
import { chance, index, pools, recording, type Row } from "./helpers.ts";

const run = (worker: number, start: number, end: number, more: Row = {}): Row => ({
  task: 0, submit: start, start, end, name: "f", outcome: 2, worker, pool: 1, error: 0, label: 0, parent: 0, attempt: 0, items: 1, ...more,
});

test("each worker has a lane, in the order of their numbers, with its runs in order", () => {
  const made = index([run(2, 30, 40), run(1, 0, 10), run(2, 5, 20)], pools(12));
  assert.deepEqual(made.lanes.map((lane) => lane.label).slice(0, 3), ["thread 0", "thread 1", "thread 2"]);
  assert.equal(made.lanes[11].label, "thread 11");
  assert.deepEqual(Array.from(made.lanes[1].rows), [2, 0]);
  assert.deepEqual(Array.from(made.lanes[1].busy), [0, 15, 25]);
});

test("runs without a worker have a lane of their own in their pool", () => {
  const made = index([run(0, 0, 10), run(0, 0, 10, { pool: 0 })], pools(1));
  assert.deepEqual(made.groups.map((group) => group.pool), [-1, 0]);
  assert.equal(made.groups[1].lanes.at(-1)?.label, "no worker");
});

test("workers of several machines are in groups of their own", () => {
  const members = pools(3) as { workers: Record<string, unknown>[] };
  members.workers[2].machine = "far";
  const made = index([run(1, 0, 10), run(3, 0, 30)], members);
  assert.deepEqual(made.groups.map((group) => group.title), ["pool", "pool on far"]);
  assert.equal(made.groups[1].busy.mean(0, 30), 1);
  assert.ok(Math.abs(made.groups[0].busy.mean(0, 30) - 1 / 3) < 1e-9);
});

test("a run without an end goes on until the end of the recording", () => {
  const made = index([run(1, 100, NaN, { outcome: 1 })], pools(1));
  assert.equal(made.stop[0], 1000);
  assert.equal(made.busy.at(2000), 1);
});

test("a retry waits from the end of the run before it", () => {
  const made = index([run(1, 50, 80, { task: 1, submit: 10, outcome: 6 }), run(1, 100, 120, { task: 1, submit: 10, attempt: 1 })], pools(1));
  assert.deepEqual(Array.from(made.waited), [40, 20]);
});

test("the queue counts tasks from submit to start, cancel, or the end", () => {
  const made = index(
    [run(1, 50, 60, { submit: 10 }), run(0, NaN, 40, { submit: 20, outcome: 4 }), run(0, NaN, NaN, { submit: 30, outcome: 0 })],
    pools(1),
  );
  assert.deepEqual([15, 25, 35, 45, 55].map((moment) => made.queue.at(moment)), [1, 2, 3, 2, 1]);
  assert.deepEqual(Array.from(made.groups[0].unstarted), [1]);
});

test("tasks are found by number, and waits by either side", () => {
  const rows = [run(1, 0, 100, { task: 7 }), run(2, 10, 50, { task: 9, parent: 7 })];
  const made = index(rows, pools(2), [{ start: 20, end: 50, waiter: 7, awaited: 9 }]);
  assert.deepEqual(Array.from(made.rowsOf(9)), [1]);
  assert.deepEqual(Array.from(made.rowsOf(8)), []);
  assert.deepEqual(Array.from(made.waitsOf(7)), [0]);
  assert.deepEqual(Array.from(made.waitsFor(9)), [0]);
  assert.deepEqual(Array.from(made.lanes[0].waits.stop), [50]);
  const lines = describe(made, 1, false).lines.map(({ label, value }) => `${label}: ${value}`);
  assert.ok(lines.includes("Submitted by: #7 f"), lines.join());
  assert.ok(lines.includes("Awaited by: #7 f"), lines.join());
});

test("a place finds the run there, then one near it", () => {
  const made = index([run(1, 0, 10), run(1, 20, 30)], pools(1));
  const [lane] = made.lanes;
  assert.equal(nearest(lane, 5, 1), 0);
  assert.equal(nearest(lane, 12, 3), 0);
  assert.equal(nearest(lane, 19, 3), 1);
  assert.equal(nearest(lane, 15, 3), -1);
});

test("a run in a longer run is found, and so is the longer one behind it", () => {
  const made = index([run(0, 0, 100), run(0, 20, 30)], pools(1));
  const lane = made.groups[0].lanes.at(-1)!;
  assert.equal(nearest(lane, 25, 1), 1);
  assert.equal(nearest(lane, 60, 1), 0);
});

test("figures by function are those of a simple computation", () => {
  const rows = Array.from({ length: 100 }, (_, i) => run(1, i * 10, i * 10 + i / 10, { name: i % 2 ? "odd" : "even", outcome: i === 1 ? 3 : 2, submit: i * 10 - 4 }));
  const found = figures(index(rows, pools(1)));
  assert.deepEqual(found.map((it) => it.count), [50, 50]);
  const [odd] = found;
  assert.ok(Math.abs(odd.total - 250) < 1e-6);
  assert.ok(Math.abs(odd.mean - 5) < 1e-6);
  assert.ok(Math.abs(odd.p50 - 5) < 1e-6);
  assert.ok(Math.abs(odd.p99 - 9.802) < 1e-6);
  assert.equal(odd.errors, 1);
  assert.equal(odd.waiting, 4);
});

test("a part of a map counts its items, and its time is divided among them", () => {
  const [found] = figures(index([run(1, 0, 80, { items: 8 })], pools(1)));
  assert.deepEqual([found.count, found.total, found.mean, found.p50], [8, 80, 10, 10]);
});

test("figures of a span are those of the runs that touch it", () => {
  const made = index([run(1, 0, 10), run(1, 20, 30), run(1, 40, 50)], pools(1));
  assert.equal(figures(made, 25, 35)[0].count, 1);
  assert.equal(figures(made, 5, 41)[0].count, 3);
  assert.deepEqual(figures(made, 11, 19), []);
});

test("search finds names, labels, arguments and errors in any case, numbers, and exact names", () => {
  const made = recording([
    run(1, 0, 1, { task: 5, name: "Load.page", label: 0 }),
    run(1, 0, 1, { task: 6, name: "store", label: "the LOAD", error: "KeyError" }),
    run(1, 0, 1, { task: 7, name: "load", error: 0 }),
  ]);
  const found = (query: string) => Array.from(search(made, query)?.isMatch ?? []);
  assert.deepEqual(found("load"), [1, 1, 1]);
  assert.deepEqual(found("keyerr"), [0, 1, 0]);
  assert.deepEqual(found("#6"), [0, 1, 0]);
  assert.deepEqual(found("=load"), [0, 0, 1]);
  assert.equal(search(made, "  "), undefined);
  assert.equal(search(made, "nothing")?.count, 0);
});

test("lanes share the height, within limits", () => {
  const few = place(index([], pools(2)), 800);
  const many = place(index([], pools(300)), 800);
  assert.equal(few.lanes[0].height, 22);
  assert.equal(many.lanes[0].height, 8);
  assert.ok(many.height > 800);
});

const PIXELS: Pixels = {
  panel: 1,
  lane: 2,
  error: 3,
  stopped: 4,
  fill: Uint32Array.from({ length: 9 * LEVELS }, (_, i) => 1000 + i),
  dim: Uint32Array.from({ length: 9 * LEVELS }, (_, i) => 5000 + i),
};

function painted(rows: Row[], from: number, to: number, width: number, matched?: Uint32Array) {
  const made = index(rows, pools(1));
  const line = new Uint32Array(width).fill(PIXELS.lane);
  const marks = new Uint32Array(width).fill(PIXELS.lane);
  const wide: number[] = [];
  const colours = Uint8Array.from(made.recording.strings, (_, i) => i % 9);
  const source = { lane: made.lanes[0], names: made.recording.tasks.name, colours, matched };
  paint(source, { line, marks, pixels: PIXELS, from, scale: (to - from) / width, wideAt: 30, wide });
  return { line: Array.from(line), marks: Array.from(marks), wide };
}

test("a run covers its pixels, and no others", () => {
  const { line, wide } = painted([run(1, 20, 60)], 0, 100, 100);
  const full = 1000 + 1 * LEVELS + LEVELS - 1;
  assert.deepEqual(line.map((pixel, x) => (pixel === full ? x : -1)).filter((x) => x >= 0), Array.from({ length: 39 }, (_, i) => 21 + i));
  assert.equal(line[19], PIXELS.lane);
  assert.equal(line[60], PIXELS.lane);
  assert.deepEqual(wide, [0]);
});

test("errors and stops are marked, also among many in a pixel", () => {
  const rows = Array.from({ length: 1000 }, (_, i) => run(1, i, i + 0.5, { outcome: i === 505 ? 3 : i === 805 ? 8 : 2 }));
  const { marks } = painted(rows, 0, 1000, 100);
  assert.deepEqual(marks.map((mark, x) => (mark === PIXELS.lane ? -1 : x)).filter((x) => x >= 0), [50, 80]);
  assert.deepEqual([marks[50], marks[80]], [PIXELS.error, PIXELS.stopped]);
});

test("runs narrower than a pixel have the level of their share, and the colour with most time", () => {
  const rows = Array.from({ length: 1000 }, (_, i) => run(1, i, i + (i % 2 ? 0.7 : 0.3), { name: i % 2 ? "long" : "short" }));
  const { line } = painted(rows, 0, 1000, 100);
  assert.equal(line[50], 1000 + 2 * LEVELS + Math.round(0.5 * (LEVELS - 1)));
});

test("runs that a search has not found are dim", () => {
  const { line } = painted([run(1, 0, 50), run(1, 50, 100)], 0, 100, 100, Uint32Array.of(0, 0, 1));
  assert.ok(line[25] >= 5000);
  assert.ok(line[75] >= 1000 && line[75] < 5000);
});

test("each pixel has the run that a search run by run finds there", () => {
  const next = chance(4);
  const rows: Row[] = [];
  for (let now = 0; now < 5000; ) {
    const start = now + next() * 20;
    now = start + next() ** 6 * 400 + 0.01;
    rows.push(run(1, start, now));
  }
  for (const [from, to] of [[0, 5000], [1000, 1100], [2500, 2501], [-500, 200], [4900, 9000]]) {
    const { line } = painted(rows, from, to, 200);
    const scale = (to - from) / 200;
    line.forEach((pixel, x) => {
      const [left, right] = [from + x * scale, from + (x + 1) * scale];
      const touches = rows.some((row) => (row.start as number) < right + scale && (row.end as number) > left - scale);
      const covers = rows.some((row) => (row.start as number) <= left - scale && (row.end as number) >= right + scale);
      if (!touches) assert.equal(pixel, PIXELS.lane, `${from}..${to} pixel ${x}`);
      if (covers) assert.notEqual(pixel, PIXELS.lane, `${from}..${to} pixel ${x}`);
    });
  }
});

test("the cost of a line depends on its width, not on the number of runs", () => {
  let reads = 0;
  const made = new Index(recording(Array.from({ length: 200_000 }, (_, i) => run(1, i, i + 0.5)), pools(1)));
  const [lane] = made.lanes;
  const start = new Proxy(lane.start, {
    get: (target, key) => {
      if (typeof key === "string" && /^\d+$/.test(key)) reads++;
      const value = Reflect.get(target, key, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
  });
  const line = new Uint32Array(100);
  paint(
    { lane: { ...lane, start }, names: made.recording.tasks.name, colours: new Uint8Array(2), matched: undefined },
    { line, marks: new Uint32Array(100), pixels: PIXELS, from: 0, scale: 2000, wideAt: 30, wide: [] },
  );
  assert.ok(reads > 100 && reads < 100 * 50, String(reads));
});
