/** Reads a recording, whose format `docs/recording.md` describes. */

/** The newest version of the format that this page understands. */
export const VERSION = 1;

/** Times beyond this, about 30 years in nanoseconds, are taken for unknown. */
const LATEST = 1e18;

/** The most rows that a table may have. */
const MOST_ROWS = 1 << 27;

export const Outcome = {
  pending: 0,
  running: 1,
  value: 2,
  error: 3,
  cancelled: 4,
  rejected: 5,
  died: 6,
  timeLimit: 7,
  terminated: 8,
  set: 9,
} as const;

/** An outcome in words, by its number. */
export const OUTCOMES = [
  "pending",
  "running",
  "finished",
  "failed",
  "cancelled",
  "not started: the pool broke",
  "its worker process died",
  "killed: its time limit passed",
  "terminated",
  "done",
] as const;

/** Returns whether an outcome is an error: of the call, of the worker, or of the pool. */
export function isFailure(outcome: number): boolean {
  return outcome === Outcome.error || (outcome >= Outcome.rejected && outcome <= Outcome.timeLimit);
}

/** Returns whether an outcome is a stop that the program asked for. */
export function isStopped(outcome: number): boolean {
  return outcome === Outcome.cancelled || outcome === Outcome.terminated;
}

export interface Pool {
  id: number;
  kind: "threads" | "processes";
  name: string;
  maxWorkers: number;
}

export interface Worker {
  /** Index of the pool, or -1. */
  pool: number;
  name: string;
  pid: number;
  /** The machine, or "" for the program's own. */
  machine: string;
  /** Nanoseconds; NaN if the worker did not start during the recording. */
  start: number;
  end: number;
  exit: { code?: number; signal?: number } | null;
}

export interface Tasks {
  count: number;
  task: Uint32Array;
  submit: Float64Array;
  start: Float64Array;
  end: Float64Array;
  name: Uint32Array;
  label: Uint32Array;
  arguments: Uint32Array;
  outcome: Uint8Array;
  error: Uint32Array;
  pool: Uint32Array;
  worker: Uint32Array;
  parent: Uint32Array;
  items: Uint32Array;
  attempt: Uint8Array;
  sent: Uint32Array;
  received: Uint32Array;
  pickling: Float32Array;
}

export interface Waits {
  count: number;
  start: Float64Array;
  end: Float64Array;
  waiter: Uint32Array;
  awaited: Uint32Array;
}

export interface Recording {
  program: string;
  pid: number;
  /** Seconds since 1970, or NaN. */
  started: number;
  duration: number;
  finished: boolean;
  dropped: number;
  strings: string[];
  pools: Pool[];
  workers: Worker[];
  tasks: Tasks;
  waits: Waits;
}

/** A document is not a recording that this page can show; the message is for the reader. */
export class UnreadableError extends Error {}

type Json = Record<string, unknown>;

/** Parses a document. */
export function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const cause = error instanceof Error ? error.message : String(error);
    throw new UnreadableError(`The recording is not complete or not JSON: ${cause}.`);
  }
}

/** Reads a whole recording. */
export function read(document: unknown): Recording {
  const json = object(document, "The recording");
  if (json.format !== undefined && json.format !== "concurrent-futures recording") {
    throw new UnreadableError(`This is not a recording: its format is ${JSON.stringify(json.format)}.`);
  }
  if (json.version !== VERSION) {
    throw new UnreadableError(
      `The recording has version ${JSON.stringify(json.version ?? null)} of the format, but this page ` +
        `reads version ${VERSION}. Write the page again with the version of concurrent-futures that made the recording.`,
    );
  }
  const strings = list(json.strings, "strings").map(text);
  const pools = list(json.pools, "pools").map((pool) => readPool(object(pool, "A pool")));
  const workers = list(json.workers, "workers").map((worker) =>
    readWorker(object(worker, "A worker"), pools.length),
  );
  const tasks = readTasks(json.tasks);
  checkReferences(tasks, strings.length, pools.length, workers);
  const duration = time(json.duration);
  return {
    program: text(json.program),
    pid: whole(json.pid),
    started: number(json.started),
    duration: Number.isNaN(duration) ? lastTime(tasks) : Math.max(0, duration),
    finished: json.finished !== false,
    dropped: whole(json.dropped),
    strings,
    pools,
    workers,
    tasks,
    waits: readWaits(json.waits),
  };
}

function readPool(json: Json): Pool {
  return {
    id: whole(json.id),
    kind: json.kind === "processes" ? "processes" : "threads",
    name: text(json.name),
    maxWorkers: whole(json.max_workers),
  };
}

function readWorker(json: Json, pools: number): Worker {
  const pool = number(json.pool);
  const start = time(json.start);
  const end = time(json.end);
  return {
    pool: Number.isInteger(pool) && pool >= 0 && pool < pools ? pool : -1,
    name: text(json.name),
    pid: whole(json.pid),
    machine: text(json.machine),
    start,
    end: end < start ? start : end,
    exit: readExit(json.exit),
  };
}

function readExit(value: unknown): Worker["exit"] {
  if (typeof value !== "object" || value === null) return null;
  const json = value as Json;
  const exit: NonNullable<Worker["exit"]> = {};
  if (typeof json.code === "number") exit.code = json.code;
  if (typeof json.signal === "number") exit.signal = json.signal;
  return exit;
}

function readTasks(value: unknown): Tasks {
  const table = readTable(value, "tasks");
  const { count } = table;
  const tasks: Tasks = {
    count,
    task: column(table, "task", Uint32Array, 0),
    submit: column(table, "submit", Float64Array, NaN),
    start: column(table, "start", Float64Array, NaN),
    end: column(table, "end", Float64Array, NaN),
    name: column(table, "name", Uint32Array, 0),
    label: column(table, "label", Uint32Array, 0),
    arguments: column(table, "arguments", Uint32Array, 0),
    outcome: column(table, "outcome", Uint8Array, 255),
    error: column(table, "error", Uint32Array, 0),
    pool: column(table, "pool", Uint32Array, 0),
    worker: column(table, "worker", Uint32Array, 0),
    parent: column(table, "parent", Uint32Array, 0),
    items: column(table, "items", Uint32Array, 1),
    attempt: column(table, "attempt", Uint8Array, 0),
    sent: column(table, "sent", Uint32Array, 0),
    received: column(table, "received", Uint32Array, 0),
    pickling: column(table, "pickling", Float32Array, 0),
  };
  const { submit, start, end, outcome, items, pickling } = tasks;
  for (let row = 0; row < count; row++) {
    if (!(Math.abs(submit[row]) < LATEST)) submit[row] = NaN;
    if (!(Math.abs(start[row]) < LATEST)) start[row] = NaN;
    if (!(Math.abs(end[row]) < LATEST)) end[row] = NaN;
    // A clock that jumped back: the run took no time.
    if (end[row] < start[row]) end[row] = start[row];
    if (!(pickling[row] >= 0 && pickling[row] < LATEST)) pickling[row] = 0;
    if (items[row] === 0) items[row] = 1;
    if (outcome[row] > Outcome.set) {
      outcome[row] = Number.isNaN(start[row])
        ? Outcome.pending
        : Number.isNaN(end[row])
          ? Outcome.running
          : Outcome.set;
    }
  }
  return tasks;
}

function readWaits(value: unknown): Waits {
  const table = readTable(value ?? { count: 0 }, "waits");
  const waits: Waits = {
    count: table.count,
    start: column(table, "start", Float64Array, NaN),
    end: column(table, "end", Float64Array, NaN),
    waiter: column(table, "waiter", Uint32Array, 0),
    awaited: column(table, "awaited", Uint32Array, 0),
  };
  const { start, end } = waits;
  for (let row = 0; row < waits.count; row++) {
    if (!(Math.abs(start[row]) < LATEST)) start[row] = NaN;
    if (!(Math.abs(end[row]) < LATEST)) end[row] = NaN;
    if (end[row] < start[row]) end[row] = start[row];
  }
  return waits;
}

/** Replaces references to rows that do not exist by "none". */
function checkReferences(tasks: Tasks, strings: number, pools: number, workers: Worker[]): void {
  for (const texts of [tasks.name, tasks.label, tasks.arguments, tasks.error]) {
    for (let row = 0; row < tasks.count; row++) if (texts[row] >= strings) texts[row] = 0;
  }
  const { pool, worker } = tasks;
  for (let row = 0; row < tasks.count; row++) {
    if (worker[row] > workers.length) worker[row] = 0;
    if (pool[row] > pools) pool[row] = 0;
    if (pool[row] === 0 && worker[row] !== 0) pool[row] = workers[worker[row] - 1].pool + 1;
  }
}

function lastTime(tasks: Tasks): number {
  let last = 0;
  for (const times of [tasks.submit, tasks.start, tasks.end]) {
    for (const moment of times) if (moment > last) last = moment;
  }
  return last;
}

interface Table {
  name: string;
  count: number;
  columns: Json;
}

function readTable(value: unknown, name: string): Table {
  const json = object(value, `The table ${name}`);
  const { count } = json;
  if (typeof count !== "number" || !Number.isInteger(count) || count < 0 || count > MOST_ROWS) {
    throw new UnreadableError(`The table ${name} has no usable count of rows: ${JSON.stringify(count ?? null)}.`);
  }
  const columns = json.columns === undefined ? {} : object(json.columns, `The columns of ${name}`);
  return { name, count, columns };
}

interface ArrayType<A> {
  new (length: number): A;
  new (buffer: ArrayBuffer): A;
  BYTES_PER_ELEMENT: number;
}

interface NumberArray {
  fill(value: number): this;
  set(values: ArrayLike<number>): void;
}

const TYPES: Record<string, ArrayType<Float64Array | Float32Array | Uint32Array | Uint8Array>> = {
  f64: Float64Array,
  f32: Float32Array,
  u32: Uint32Array,
  u8: Uint8Array,
};

/** Reads a column as an array of `type`; a column that is not there has the same value in all rows. */
function column<A extends NumberArray>(
  table: Table,
  name: string,
  type: ArrayType<A>,
  absent: number,
): A {
  const { count } = table;
  const value = table.columns[name];
  if (value === undefined) return new type(count).fill(absent);
  const place = `The column ${table.name}.${name}`;
  const json = object(value, place);
  if ("constant" in json) {
    return new type(count).fill(typeof json.constant === "number" ? json.constant : absent);
  }
  const stored = typeof json.type === "string" ? TYPES[json.type] : undefined;
  if (stored === undefined) {
    throw new UnreadableError(`${place} has an unknown type: ${JSON.stringify(json.type ?? null)}.`);
  }
  if (typeof json.base64 !== "string") throw new UnreadableError(`${place} has no data.`);
  const bytes = fromBase64(json.base64, place);
  const wanted = count * stored.BYTES_PER_ELEMENT;
  if (bytes.byteLength !== wanted) {
    throw new UnreadableError(`${place} has ${bytes.byteLength} bytes, but ${count} rows need ${wanted}.`);
  }
  const values = new stored(bytes.buffer);
  if (values instanceof (type as unknown as new () => object)) return values as unknown as A;
  const converted = new type(count);
  converted.set(values);
  return converted;
}

/** Decodes base64 into an array with a buffer of its own. */
export function fromBase64(text: string, place = "A column"): Uint8Array<ArrayBuffer> {
  const native = Uint8Array as unknown as { fromBase64?: (text: string) => Uint8Array<ArrayBuffer> };
  try {
    if (native.fromBase64) return native.fromBase64(text);
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
    return bytes;
  } catch {
    throw new UnreadableError(`${place} is not base64.`);
  }
}

function object(value: unknown, name: string): Json {
  if (typeof value !== "object" || value === null || Array.isArray(value)) {
    throw new UnreadableError(`${name} is not an object.`);
  }
  return value as Json;
}

function list(value: unknown, name: string): unknown[] {
  if (value === undefined) return [];
  if (!Array.isArray(value)) throw new UnreadableError(`The member ${name} is not a list.`);
  return value;
}

function text(value: unknown): string {
  return typeof value === "string" ? value : "";
}

function number(value: unknown): number {
  return typeof value === "number" && Number.isFinite(value) ? value : NaN;
}

function time(value: unknown): number {
  const moment = number(value);
  return Math.abs(moment) < LATEST ? moment : NaN;
}

function whole(value: unknown): number {
  const found = number(value);
  return found > 0 ? Math.floor(found) : 0;
}
