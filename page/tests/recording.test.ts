import assert from "node:assert/strict";
import { test } from "node:test";
import { GrowingRecording, OutOfStepError } from "../src/live.ts";
import { fromBase64, parse, read, UnreadableError } from "../src/recording.ts";
import { document, encode, pools, recording } from "./helpers.ts";

test("columns of all types and constants are read", () => {
  const made = recording([
    { task: 1, submit: 1.5, start: 2, end: 3, name: "load", outcome: 2, pickling: 7, items: 2 },
    { task: 2, submit: NaN, start: 4, end: NaN, name: "load", outcome: 1, pickling: 0, items: 1 },
  ]);
  assert.deepEqual(Array.from(made.tasks.task), [1, 2]);
  assert.deepEqual(Array.from(made.tasks.submit), [1.5, NaN]);
  assert.deepEqual(Array.from(made.tasks.outcome), [2, 1]);
  assert.equal(made.strings[made.tasks.name[1]], "load");
  const constant = read({ ...document([]), tasks: { count: 3, columns: { start: { type: "f64", constant: null }, items: { type: "u32", constant: 4 } } } });
  assert.deepEqual(Array.from(constant.tasks.start), [NaN, NaN, NaN]);
  assert.deepEqual(Array.from(constant.tasks.items), [4, 4, 4]);
});

test("a column of another type is converted", () => {
  const made = read({ ...document([]), tasks: { count: 2, columns: { start: encode("u32", [5, 6]) } } });
  assert.deepEqual(Array.from(made.tasks.start), [5, 6]);
});

test("columns and members that are not there, or not known, are no error", () => {
  const made = read({ version: 1, surprise: {}, tasks: { count: 1, columns: { colour: encode("u8", [1]), start: encode("f64", [3]) } } });
  assert.equal(made.tasks.count, 1);
  assert.equal(made.tasks.items[0], 1);
  assert.equal(made.tasks.outcome[0], 1);
  assert.equal(made.waits.count, 0);
});

test("absurd times are unknown, and a jump back of the clock is a run without length", () => {
  const made = recording([
    { start: 1e300, end: Infinity, submit: -Infinity },
    { start: 10, end: 5, submit: 1 },
    { start: -20, end: -10, submit: -30 },
  ]);
  assert.deepEqual(Array.from(made.tasks.start), [NaN, 10, -20]);
  assert.deepEqual(Array.from(made.tasks.end), [NaN, 10, -10]);
  assert.deepEqual(Array.from(made.tasks.submit), [NaN, 1, -30]);
});

test("references to rows that do not exist are references to none", () => {
  const made = recording([{ name: 99, error: 4e9, pool: 7, worker: 8, outcome: 200, start: 1, end: 2, items: 0 }], pools(1));
  const { name, error, pool, worker, outcome, items } = made.tasks;
  assert.deepEqual([name[0], error[0], pool[0], worker[0], outcome[0], items[0]], [0, 0, 0, 0, 9, 1]);
});

test("a task without a pool is in the pool of its worker", () => {
  assert.equal(recording([{ worker: 1, start: 1 }], pools(1)).tasks.pool[0], 1);
});

const BROKEN: [string, unknown, RegExp][] = [
  ["another version", { version: 2, tasks: { count: 0 } }, /version 2 .* reads version 1/],
  ["no version", { tasks: { count: 0 } }, /version null/],
  ["another format", { format: "trace", version: 1 }, /not a recording/],
  ["a list", [], /not an object/],
  ["nothing", null, /not an object/],
  ["no table of tasks", { version: 1 }, /table tasks is not an object/],
  ["a negative count", { version: 1, tasks: { count: -1 } }, /no usable count/],
  ["a huge count", { version: 1, tasks: { count: 1e15 } }, /no usable count/],
  ["too few bytes", { version: 1, tasks: { count: 9, columns: { start: encode("f64", [1]) } } }, /has 8 bytes, but 9 rows need 72/],
  ["bad base64", { version: 1, tasks: { count: 1, columns: { start: { type: "f64", base64: "%%%" } } } }, /not base64/],
  ["an unknown type", { version: 1, tasks: { count: 1, columns: { start: { type: "i128", base64: "" } } } }, /unknown type/],
  ["no data", { version: 1, tasks: { count: 1, columns: { start: { type: "f64" } } } }, /has no data/],
];

for (const [name, value, message] of BROKEN) {
  test(`${name} gives a clear message`, () => {
    assert.throws(() => read(value), (error) => error instanceof UnreadableError && message.test(error.message));
  });
}

test("a document that is cut off gives a clear message", () => {
  assert.throws(() => parse('{"version": 1, "tas'), (error) => error instanceof UnreadableError && /not complete/.test(error.message));
});

test("base64 is decoded without the method of newer browsers as well", () => {
  const type = Uint8Array as unknown as { fromBase64?: unknown };
  const before = type.fromBase64;
  delete type.fromBase64;
  try {
    assert.deepEqual(Array.from(fromBase64("AAEC/w==")), [0, 1, 2, 255]);
  } finally {
    if (before) type.fromBase64 = before;
  }
});

test("updates extend a recording, and its open rows are replaced", () => {
  const growing = new GrowingRecording();
  const first = { ...document([{ task: 1, start: 1, end: 2, name: "a", outcome: 2 }]), finished: false };
  const open = (task: number) => ({ tasks: { count: 1, columns: { task: encode("u32", [task]), start: encode("f64", [5]) } } });
  let now = growing.apply({ ...first, open: open(2) });
  assert.deepEqual(Array.from(now.tasks.task), [1, 2]);

  const second = document([{ task: 2, start: 5, end: 9, name: 2, outcome: 2 }]);
  now = growing.apply({ ...second, strings: ["b"], update: { tasks: 1, waits: 0, strings: 2 }, open: open(3), duration: 2000 });
  assert.deepEqual(Array.from(now.tasks.task), [1, 2, 3]);
  assert.deepEqual(now.strings, ["", "a", "b"]);
  assert.equal(now.strings[now.tasks.name[1]], "b");
  assert.equal(now.duration, 2000);

  now = growing.apply({ ...document([]), strings: [], update: { tasks: 2, waits: 0, strings: 3 } });
  assert.deepEqual(Array.from(now.tasks.task), [1, 2]);
});

test("an update that does not follow the document before it is refused", () => {
  const growing = new GrowingRecording();
  assert.throws(() => growing.apply({ ...document([]), update: { tasks: 0, waits: 0, strings: 0 } }), OutOfStepError);
  growing.apply(document([{ task: 1 }]));
  assert.throws(() => growing.apply({ ...document([]), update: { tasks: 5, waits: 0, strings: 1 } }), OutOfStepError);
});
