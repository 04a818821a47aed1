/** Makes documents for the tests. */

import { Index } from "../src/index.ts";
import { read, type Recording } from "../src/recording.ts";

export interface Row {
  [column: string]: number | string | undefined;
}

const TYPES: Record<string, (values: number[]) => ArrayBufferView> = {
  f64: (values) => Float64Array.from(values),
  f32: (values) => Float32Array.from(values),
  u32: (values) => Uint32Array.from(values),
  u8: (values) => Uint8Array.from(values),
};

const KINDS: Record<string, string> = { submit: "f64", start: "f64", end: "f64", pickling: "f32", outcome: "u8", attempt: "u8" };

export function encode(type: string, values: number[]): { type: string; base64: string } {
  const { buffer } = TYPES[type](values);
  return { type, base64: Buffer.from(buffer as ArrayBuffer).toString("base64") };
}

/** A document of rows; texts become indices of the table of strings. */
export function document(rows: Row[], members: Record<string, unknown> = {}, waits: Row[] = []): Record<string, unknown> {
  const strings = [""];
  const number = (value: number | string | undefined): number => {
    if (typeof value !== "string") return value ?? NaN;
    if (!strings.includes(value)) strings.push(value);
    return strings.indexOf(value);
  };
  const table = (list: Row[]) => {
    const names = [...new Set(list.flatMap((row) => Object.keys(row)))];
    const columns = names.map((name) => [name, encode(KINDS[name] ?? "u32", list.map((row) => number(row[name])))]);
    return { count: list.length, columns: Object.fromEntries(columns) };
  };
  const [tasks, waited] = [table(rows), table(waits)];
  return {
    format: "concurrent-futures recording",
    version: 1,
    program: "test.py",
    duration: rows.reduce((last, row) => (typeof row.end === "number" && row.end > last ? row.end : last), 1000),
    finished: true,
    dropped: 0,
    strings,
    pools: [],
    workers: [],
    tasks,
    waits: waited,
    ...members,
  };
}

export function pools(threads: number, kind = "threads"): Record<string, unknown> {
  return {
    pools: [{ id: 1, kind, name: "pool", max_workers: threads }],
    workers: Array.from({ length: threads }, (_, i) => ({ id: i + 1, pool: 0, name: `pool_${i}`, pid: 1, start: 0, end: null, exit: null })),
  };
}

export function recording(rows: Row[], members: Record<string, unknown> = {}, waits: Row[] = []): Recording {
  return read(document(rows, members, waits));
}

export function index(rows: Row[], members: Record<string, unknown> = {}, waits: Row[] = []): Index {
  return new Index(recording(rows, members, waits));
}

/** Numbers that look random and are the same in each run. */
export function chance(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let t = state;
    t = Math.imul(t ^ (t >>> 15), t | 1);
    t ^= t + Math.imul(t ^ (t >>> 7), t | 61);
    return ((t ^ (t >>> 14)) >>> 0) / 2 ** 32;
  };
}
