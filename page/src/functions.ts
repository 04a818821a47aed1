/** Figures by function. */

import type { Index } from "./index.ts";
import { quantile, split } from "./order.ts";
import { isFailure, isStopped } from "./recording.ts";

export interface Figures {
  /** Index of the function's name in the table of strings. */
  name: number;
  /** Calls that ran or run; a part of a `map` counts each of its items. */
  count: number;
  /** Rows that never started. */
  unstarted: number;
  /** Nanoseconds of all runs, and of single calls. NaN if nothing ran. */
  total: number;
  mean: number;
  p50: number;
  p95: number;
  p99: number;
  max: number;
  errors: number;
  stopped: number;
  /** Mean time in the queue; NaN if it is not known. */
  waiting: number;
  /** Bytes of the pickled calls and results. */
  bytes: number;
  pickling: number;
  /** The longest run. */
  longest: number;
}

/** Returns the figures of each function, the one with most time first; only of runs that touch the span. */
export function figures(index: Index, from = -Infinity, to = Infinity): Figures[] {
  const { tasks, strings } = index.recording;
  const rows = new Uint32Array(tasks.count);
  let count = 0;
  const isWhole = from === -Infinity && to === Infinity;
  for (let row = 0; row < tasks.count; row++) {
    const start = Number.isNaN(tasks.start[row]) ? tasks.submit[row] : tasks.start[row];
    const stop = Number.isNaN(index.stop[row]) ? Infinity : index.stop[row];
    if (isWhole || (start < to && stop >= from)) rows[count++] = row;
  }
  return split(rows.subarray(0, count), tasks.name, Math.max(1, strings.length))
    .map((rows, name) => ofFunction(index, name, rows))
    .filter((found) => found.count + found.unstarted > 0)
    .sort((a, b) => (b.total || 0) - (a.total || 0) || b.count - a.count);
}

function ofFunction(index: Index, name: number, rows: Uint32Array): Figures {
  const { tasks } = index.recording;
  const durations = new Float64Array(rows.length);
  const found: Figures = {
    name,
    count: 0,
    unstarted: 0,
    total: 0,
    mean: NaN,
    p50: NaN,
    p95: NaN,
    p99: NaN,
    max: NaN,
    errors: 0,
    stopped: 0,
    waiting: NaN,
    bytes: 0,
    pickling: 0,
    longest: -1,
  };
  let ran = 0;
  let waits = 0;
  let waited = 0;
  let max = -1;
  for (const row of rows) {
    const outcome = tasks.outcome[row];
    if (isFailure(outcome)) found.errors++;
    if (isStopped(outcome)) found.stopped++;
    found.bytes += tasks.sent[row] + tasks.received[row];
    found.pickling += tasks.pickling[row];
    if (Number.isFinite(index.waited[row])) {
      waits++;
      waited += index.waited[row];
    }
    if (Number.isNaN(tasks.start[row])) {
      found.unstarted++;
      continue;
    }
    const duration = index.stop[row] - tasks.start[row];
    found.count += tasks.items[row];
    found.total += duration;
    if (duration > max) {
      max = duration;
      found.longest = row;
    }
    durations[ran++] = duration / tasks.items[row];
  }
  if (waits > 0) found.waiting = waited / waits;
  if (ran === 0) {
    found.total = NaN;
    return found;
  }
  const sorted = durations.subarray(0, ran).sort();
  found.mean = found.total / found.count;
  found.p50 = quantile(sorted, 0.5);
  found.p95 = quantile(sorted, 0.95);
  found.p99 = quantile(sorted, 0.99);
  found.max = sorted[ran - 1];
  return found;
}
