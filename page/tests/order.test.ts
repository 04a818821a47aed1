import assert from "node:assert/strict";
import { test } from "node:test";
import { Flow, Rate } from "../src/flow.ts";
import { gallop, lowerBound, order, quantile, split, upperBound } from "../src/order.ts";
import { chance } from "./helpers.ts";

function rowsTo(count: number): Uint32Array {
  return Uint32Array.from({ length: count }, (_, row) => row);
}

for (const [name, count, key] of [
  ["few", 100, (n: number) => n * 1e9 - 5e8],
  ["many", 20_000, (n: number) => n * 1e12 - 5e11],
  ["equal", 5_000, () => 7],
  ["small whole", 5_000, (n: number) => Math.floor(n * 10)],
  ["tiny and huge", 5_000, (n: number) => (n < 0.5 ? 1 : -1) * 10 ** (n * 600 - 300)],
] as [string, number, (n: number) => number][]) {
  test(`${name} keys are sorted as by comparison, and equal ones keep their order`, () => {
    const next = chance(count);
    const keys = Float64Array.from({ length: count }, () => key(next()));
    keys[3] = -0;
    keys[4] = 0;
    const wanted = Array.from(rowsTo(count)).sort((a, b) => keys[a] - keys[b] || a - b);
    assert.deepEqual(Array.from(order(rowsTo(count), keys)), wanted);
  });
}

test("bounds are those of a linear search", () => {
  const next = chance(1);
  const sorted = Float64Array.from({ length: 500 }, () => Math.floor(next() * 100)).sort();
  for (let wanted = -1; wanted <= 101; wanted += 0.5) {
    const first = sorted.findIndex((value) => value >= wanted);
    const after = sorted.findIndex((value) => value > wanted);
    assert.equal(lowerBound(sorted, wanted), first < 0 ? 500 : first);
    assert.equal(upperBound(sorted, wanted), after < 0 ? 500 : after);
    for (const from of [0, 3, 100, 499]) assert.equal(gallop(sorted, wanted, from), Math.max(from, first < 0 ? 500 : first));
  }
});

test("rows are split by key in their order", () => {
  const parts = split(rowsTo(6), [2, 0, 2, 2, 0, 3], 4);
  assert.deepEqual(parts.map((part) => Array.from(part)), [[1, 4], [], [0, 2, 3], [5]]);
});

test("quantiles lie between their neighbours", () => {
  assert.equal(quantile(Float64Array.of(5), 0.99), 5);
  assert.equal(quantile(Float64Array.of(1, 2, 3), 0.5), 2);
  assert.equal(quantile(Float64Array.of(0, 10), 0.95), 9.5);
});

test("the mean of a flow is that of its count at many moments", () => {
  const next = chance(9);
  const enter = Float64Array.from({ length: 3000 }, () => next() * 1000);
  const leave = enter.map((moment) => moment + next() * 40);
  const flow = new Flow(enter, leave);
  for (const [from, to] of [[0, 1000], [100, 101], [500, 900], [-50, 10], [990, 1100]]) {
    let sum = 0;
    for (let i = 0; i < 20_000; i++) sum += flow.at(from + ((i + 0.5) / 20_000) * (to - from));
    assert.ok(Math.abs(flow.mean(from, to) - sum / 20_000) < 0.05 + 0.01 * (sum / 20_000));
  }
});

test("the mean of a flow is exact far from its beginning", () => {
  // A million events within seconds, long after the clock began.
  const base = 1e15;
  const enter = Float64Array.from({ length: 1_000_000 }, (_, i) => base + i * 4096);
  const leave = enter.map((moment) => moment + 2048);
  const flow = new Flow(enter, leave);
  assert.ok(Math.abs(flow.mean(base + 4096 * 1000, base + 4096 * 900_000) - 0.5) < 1e-6);
  assert.ok(Math.abs(flow.mean(base + 4096 * 5000, base + 4096 * 5100) - 0.5) < 1e-6);
});

test("the largest count of a flow counts a leave before an enter at the same moment", () => {
  const flow = new Flow(Float64Array.of(1, 2, 3), Float64Array.of(2, 3, 4));
  assert.equal(flow.max(0, 10), 1);
});

test("a rate counts weights in a span without its end", () => {
  const rate = new Rate(Float64Array.of(1, 2, 3), [1, 16, 2]);
  assert.equal(rate.count(1, 3), 17);
  assert.equal(rate.count(3, 4), 2);
});
