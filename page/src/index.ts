/** A recording in the order in which the page draws it: lanes, flows, and rows by task. */

import { Flow, Rate } from "./flow.ts";
import { lowerBound, order, split, upperBound } from "./order.ts";
import { isFailure, isStopped, Outcome, type Recording } from "./recording.ts";

/** The runs of one worker in the order of their starts; the arrays run in parallel. */
export interface Lane {
  /** Index of the worker, or -1 for runs without one. */
  worker: number;
  label: string;
  title: string;
  rows: Uint32Array;
  start: Float64Array;
  stop: Float64Array;
  /** The latest stop of this run and those before it. */
  reach: Float64Array;
  /** Sums of the first 0, 1, 2… runs: their time, their failures, and their stops. */
  busy: Float64Array;
  failed: Uint32Array;
  stopped: Uint32Array;
  /** The waits for other tasks, in order. */
  waits: { start: Float64Array; stop: Float64Array; wait: Uint32Array };
}

/** The workers of one pool on one machine. */
export interface Group {
  /** Index of the pool, or -1. */
  pool: number;
  title: string;
  kind: string;
  lanes: Lane[];
  /** Tasks in the queue of the pool. */
  queue: Flow;
  busy: Flow;
  /** Rows that never started and are done, in the order of their ends. */
  unstarted: Uint32Array;
  unstartedEnd: Float64Array;
}

export class Index {
  readonly recording: Recording;
  readonly groups: Group[];
  readonly lanes: Lane[];
  readonly busy: Flow;
  readonly queue: Flow;
  readonly done: Rate;
  /** The end of each run as drawn: a run without an end goes on until the end of the recording. */
  readonly stop: Float64Array;
  /** The time each row spent in its queue, or NaN. */
  readonly waited: Float64Array;
  /** All rows in the order of their tasks. */
  private readonly byTask: Uint32Array;
  private readonly taskNumbers: Uint32Array;
  private readonly waitsByWaiter: Uint32Array;
  private readonly waiterNumbers: Uint32Array;
  private readonly waitsByAwaited: Uint32Array;
  private readonly awaitedNumbers: Uint32Array;
  private readonly laneOfWorker: Map<number, Lane>;
  /** The times that the recording covers, with those before its beginning. */
  readonly from: number;
  readonly to: number;

  constructor(recording: Recording) {
    this.recording = recording;
    const { tasks, waits } = recording;
    const all = new Uint32Array(tasks.count).map((_, row) => row);
    this.byTask = order(all, tasks.task);
    this.taskNumbers = pick(tasks.task, this.byTask);
    const allWaits = new Uint32Array(waits.count).map((_, row) => row);
    this.waitsByWaiter = order(allWaits, waits.waiter);
    this.waiterNumbers = pick(waits.waiter, this.waitsByWaiter);
    this.waitsByAwaited = order(allWaits, waits.awaited);
    this.awaitedNumbers = pick(waits.awaited, this.waitsByAwaited);

    this.stop = stops(recording);
    const queued = this.enterTimes();
    this.waited = new Float64Array(tasks.count);
    for (let row = 0; row < tasks.count; row++) {
      const left = leaveTime(recording, row);
      this.waited[row] = Math.max(0, left - queued[row]);
    }

    this.laneOfWorker = new Map();
    this.groups = this.makeGroups(all, queued);
    this.lanes = this.groups.flatMap((group) => group.lanes);
    this.placeWaits();

    const [single] = this.groups;
    const isSingle = this.groups.length === 1;
    this.busy = isSingle ? single.busy : busyFlow(all, tasks.start, this.stop, tasks.outcome);
    this.queue = isSingle ? single.queue : queueFlow(all, queued, recording);
    const ended = all.filter((row) => !Number.isNaN(tasks.start[row]) && !Number.isNaN(tasks.end[row]));
    const byEnd = order(ended, tasks.end);
    this.done = new Rate(pick(tasks.end, byEnd), pick(tasks.items, byEnd));

    let from = 0;
    let to = recording.duration;
    for (const lane of this.lanes) {
      if (lane.rows.length === 0) continue;
      from = Math.min(from, lane.start[0]);
      to = Math.max(to, lane.reach[lane.rows.length - 1]);
    }
    this.from = from;
    this.to = to > from ? to : from + 1;
  }

  /** The rows of a task: more than one if it was retried, or run in parts. */
  rowsOf(task: number): Uint32Array {
    const first = lowerBound(this.taskNumbers, task);
    return this.byTask.subarray(first, upperBound(this.taskNumbers, task, first));
  }

  /** The waits of a task for others. */
  waitsOf(task: number): Uint32Array {
    const first = lowerBound(this.waiterNumbers, task);
    return this.waitsByWaiter.subarray(first, upperBound(this.waiterNumbers, task, first));
  }

  /** The waits of other tasks for a task. */
  waitsFor(task: number): Uint32Array {
    const first = lowerBound(this.awaitedNumbers, task);
    return this.waitsByAwaited.subarray(first, upperBound(this.awaitedNumbers, task, first));
  }

  /** The lane of a row, if it has started. */
  laneOf(row: number): Lane | undefined {
    const { tasks } = this.recording;
    if (Number.isNaN(tasks.start[row])) return undefined;
    const worker = tasks.worker[row] - 1;
    if (worker >= 0) return this.laneOfWorker.get(worker);
    const pool = tasks.pool[row] - 1;
    return this.groups.find((group) => group.pool === pool)?.lanes.find((lane) => lane.worker < 0);
  }

  /** The place of a row in its lane, or -1. */
  placeIn(lane: Lane, row: number): number {
    const start = this.recording.tasks.start[row];
    for (let i = lowerBound(lane.start, start); i < lane.rows.length && lane.start[i] === start; i++) {
      if (lane.rows[i] === row) return i;
    }
    return -1;
  }

  /** The row of a task that ran at a moment; its last row otherwise. */
  rowAt(task: number, moment: number): number | undefined {
    const rows = this.rowsOf(task);
    const { start } = this.recording.tasks;
    return rows.find((row) => start[row] <= moment && moment <= this.stop[row]) ?? rows[rows.length - 1];
  }

  /** All rows with a time, in the order of their starts, or else of their ends. */
  byTime(): Uint32Array {
    if (this.inTime) return this.inTime;
    const { tasks } = this.recording;
    const times = tasks.start.map((start, row) => (Number.isNaN(start) ? tasks.end[row] : start));
    const rows = new Uint32Array(tasks.count).map((_, row) => row).filter((row) => !Number.isNaN(times[row]));
    return (this.inTime = order(rows, times));
  }

  private inTime: Uint32Array | undefined;

  /** The moment from which each row waits in a queue: a retry waits from the end of the run before it. */
  private enterTimes(): Float64Array {
    const { tasks } = this.recording;
    const times = tasks.submit.slice();
    for (let row = 0; row < tasks.count; row++) {
      if (tasks.attempt[row] === 0) continue;
      times[row] = NaN;
      for (const other of this.rowsOf(tasks.task[row])) {
        if (tasks.attempt[other] === tasks.attempt[row] - 1) times[row] = tasks.end[other];
      }
    }
    return times;
  }

  private makeGroups(all: Uint32Array, queued: Float64Array): Group[] {
    const { tasks, pools, workers } = this.recording;
    const byPool = split(all, tasks.pool, pools.length + 1);
    const started = all.filter((row) => !Number.isNaN(tasks.start[row]));
    const byWorker = split(order(started, tasks.start), tasks.worker, workers.length + 1);
    const homeless = split(byWorker[0], tasks.pool, pools.length + 1);

    const groups: Group[] = [];
    for (let pool = 0; pool <= pools.length; pool++) {
      const machines = new Map<string, number[]>();
      workers.forEach((worker, i) => {
        if (worker.pool !== pool - 1) return;
        const members = machines.get(worker.machine);
        if (members) members.push(i);
        else machines.set(worker.machine, [i]);
      });
      const rows = byPool[pool];
      if (machines.size === 0 && rows.length === 0) continue;
      if (machines.size === 0) machines.set("", []);
      let isFirst = true;
      for (const [machine, members] of machines) {
        const lanes = labelled(members, workers, pools[pool - 1]?.kind ?? "threads").map(([worker, label]) => {
          const lane = makeLane(worker, label, workers[worker].name || label, byWorker[worker + 1], this);
          this.laneOfWorker.set(worker, lane);
          return lane;
        });
        // The queue is the pool's: it is shown with its first machine.
        if (isFirst && homeless[pool].length > 0) {
          lanes.push(makeLane(-1, "no worker", "Runs whose worker is not known", homeless[pool], this));
        }
        const own = isFirst ? rows : rows.subarray(0, 0);
        const ran = machines.size === 1 ? rows : Uint32Array.from(lanes.flatMap((lane) => Array.from(lane.rows)));
        const unstarted = order(
          own.filter((row) => Number.isNaN(tasks.start[row]) && !Number.isNaN(tasks.end[row])),
          tasks.end,
        );
        const name = pools[pool - 1]?.name || (pool === 0 ? "Tasks without a pool" : `Pool ${pool}`);
        groups.push({
          pool: pool - 1,
          title: machine === "" ? name : `${name} on ${machine}`,
          kind: pools[pool - 1]?.kind ?? "",
          lanes,
          queue: queueFlow(own, queued, this.recording),
          busy: busyFlow(ran, tasks.start, this.stop, tasks.outcome),
          unstarted,
          unstartedEnd: pick(tasks.end, unstarted),
        });
        isFirst = false;
      }
    }
    return groups;
  }

  /** Gives each lane the waits of its runs. */
  private placeWaits(): void {
    const { waits, duration } = this.recording;
    if (waits.count === 0) return;
    const found = new Map<Lane, number[]>();
    for (let wait = 0; wait < waits.count; wait++) {
      if (Number.isNaN(waits.start[wait])) continue;
      const row = this.rowAt(waits.waiter[wait], waits.start[wait]);
      const lane = row === undefined ? undefined : this.laneOf(row);
      if (!lane) continue;
      const list = found.get(lane);
      if (list) list.push(wait);
      else found.set(lane, [wait]);
    }
    for (const [lane, list] of found) {
      const wait = order(Uint32Array.from(list), waits.start);
      const stop = pick(waits.end, wait);
      for (let i = 0; i < stop.length; i++) if (Number.isNaN(stop[i])) stop[i] = Math.max(duration, waits.start[wait[i]]);
      lane.waits = { start: pick(waits.start, wait), stop, wait };
    }
  }
}

function makeLane(worker: number, label: string, title: string, rows: Uint32Array, index: Index): Lane {
  const { tasks } = index.recording;
  const count = rows.length;
  const lane: Lane = {
    worker,
    label,
    title,
    rows,
    start: pick(tasks.start, rows),
    stop: pick(index.stop, rows),
    reach: new Float64Array(count),
    busy: new Float64Array(count + 1),
    failed: new Uint32Array(count + 1),
    stopped: new Uint32Array(count + 1),
    waits: { start: new Float64Array(0), stop: new Float64Array(0), wait: new Uint32Array(0) },
  };
  let reach = -Infinity;
  for (let i = 0; i < count; i++) {
    const outcome = tasks.outcome[rows[i]];
    reach = Math.max(reach, lane.stop[i]);
    lane.reach[i] = reach;
    lane.busy[i + 1] = lane.busy[i] + lane.stop[i] - lane.start[i];
    lane.failed[i + 1] = lane.failed[i] + (isFailure(outcome) ? 1 : 0);
    lane.stopped[i + 1] = lane.stopped[i] + (isStopped(outcome) ? 1 : 0);
  }
  return lane;
}

/** Returns workers with short labels, such as "thread 3", in the order of their numbers. */
function labelled(members: number[], workers: Recording["workers"], kind: string): [number, string][] {
  const noun = kind === "processes" ? "process" : "thread";
  const numbers = members.map((worker) => /(\d+)$/.exec(workers[worker].name)?.[1]);
  const bases = new Set(members.map((worker) => workers[worker].name.replace(/\d+$/, "")));
  const areNumbered = bases.size === 1 && new Set(numbers).size === members.length && !numbers.includes(undefined);
  const found = members.map((worker, i): [number, string] => [
    worker,
    areNumbered ? `${noun} ${numbers[i]}` : workers[worker].name || `${noun} ${i + 1}`,
  ]);
  if (areNumbered) found.sort((a, b) => Number(a[1].split(" ")[1]) - Number(b[1].split(" ")[1]));
  return found;
}

function stops({ tasks, duration }: Recording): Float64Array {
  const found = tasks.end.slice();
  for (let row = 0; row < tasks.count; row++) {
    if (!Number.isNaN(found[row]) || Number.isNaN(tasks.start[row])) continue;
    found[row] = tasks.outcome[row] === Outcome.running ? Math.max(duration, tasks.start[row]) : tasks.start[row];
  }
  return found;
}

/** The moment at which a row left its queue; Infinity if it is still there. */
function leaveTime({ tasks }: Recording, row: number): number {
  if (!Number.isNaN(tasks.start[row])) return tasks.start[row];
  if (!Number.isNaN(tasks.end[row])) return tasks.end[row];
  return tasks.outcome[row] === Outcome.pending ? Infinity : NaN;
}

function queueFlow(rows: Uint32Array, queued: Float64Array, recording: Recording): Flow {
  const enter = new Float64Array(rows.length);
  const leave = new Float64Array(rows.length);
  let entered = 0;
  let left = 0;
  for (const row of rows) {
    const moment = leaveTime(recording, row);
    if (Number.isNaN(queued[row]) || Number.isNaN(moment)) continue;
    enter[entered++] = queued[row];
    if (moment !== Infinity) leave[left++] = Math.max(moment, queued[row]);
  }
  return new Flow(enter.slice(0, entered), leave.slice(0, left));
}

function busyFlow(rows: Uint32Array, start: Float64Array, stop: Float64Array, outcome: Uint8Array): Flow {
  const enter = new Float64Array(rows.length);
  const leave = new Float64Array(rows.length);
  let entered = 0;
  let left = 0;
  for (const row of rows) {
    if (Number.isNaN(start[row])) continue;
    enter[entered++] = start[row];
    if (outcome[row] !== Outcome.running) leave[left++] = stop[row];
  }
  return new Flow(enter.slice(0, entered), leave.slice(0, left));
}

/** Returns the values at some places. */
export function pick<A extends Float64Array | Uint32Array>(values: A, places: Uint32Array): A {
  const found = new (values.constructor as new (length: number) => A)(places.length);
  for (let i = 0; i < places.length; i++) found[i] = values[places[i]];
  return found;
}
