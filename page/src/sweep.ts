/** Goes through a pool's events in order, and adds up how its workers spent their time. */

import type { Group, Index } from "./index.ts";

export interface Sweep {
  /** From the first start of a run to the last end of one. */
  from: number;
  to: number;
  /** Worker-nanoseconds in which workers existed, ran tasks, and were idle with and without tasks in the queue. */
  capacity: number;
  busy: number;
  idleQueued: number;
  idleEmpty: number;
  /** Nanoseconds in which all workers were busy and tasks waited. */
  saturated: number;
  /** The most workers that were busy, and that existed, at once. */
  mostBusy: number;
  mostWorkers: number;
  mostQueued: number;
  /** The longest time in which one worker was busy, others were idle, and no task waited. */
  lone: { from: number; to: number; idle: number };
}

export function sweep(index: Index, group: Group): Sweep {
  const { workers, duration } = index.recording;
  const found: Sweep = {
    from: Infinity,
    to: -Infinity,
    capacity: 0,
    busy: 0,
    idleQueued: 0,
    idleEmpty: 0,
    saturated: 0,
    mostBusy: 0,
    mostWorkers: 0,
    mostQueued: 0,
    lone: { from: 0, to: 0, idle: 0 },
  };
  const came: number[] = [];
  const left: number[] = [];
  for (const lane of group.lanes) {
    const count = lane.rows.length;
    if (count > 0) {
      found.from = Math.min(found.from, lane.start[0]);
      found.to = Math.max(found.to, lane.reach[count - 1]);
    }
    const worker = workers[lane.worker];
    const first = count > 0 ? lane.start[0] : Infinity;
    const last = count > 0 ? lane.reach[count - 1] : -Infinity;
    const start = worker === undefined || Number.isNaN(worker.start) ? Math.min(0, first) : worker.start;
    const end = worker === undefined || Number.isNaN(worker.end) ? Math.max(duration, last) : worker.end;
    came.push(Math.min(start, first));
    left.push(Math.max(end, last));
  }
  if (!(found.to >= found.from)) return found;

  const events = [
    group.busy.enter,
    group.busy.leave,
    group.queue.enter,
    group.queue.leave,
    Float64Array.from(came).sort(),
    Float64Array.from(left).sort(),
  ];
  const places = events.map(() => 0);
  let now = -Infinity;
  let lone = found.from;
  let isLone = false;
  for (;;) {
    const [busy, queued, present] = [0, 2, 4].map((kind) => places[kind] - places[kind + 1]);
    let next = Infinity;
    for (let kind = 0; kind < events.length; kind++) {
      const moment = events[kind][places[kind]];
      if (moment < next) next = moment;
    }
    if (busy > found.mostBusy) found.mostBusy = busy;
    if (present > found.mostWorkers) found.mostWorkers = present;
    if (queued > found.mostQueued) found.mostQueued = queued;
    const until = next === Infinity ? now : next;
    // Only the time between the first run and the last one counts.
    const length = Math.min(until, found.to) - Math.max(now, found.from);
    if (length > 0) {
      const idle = Math.max(0, present - busy);
      found.capacity += Math.max(present, busy) * length;
      found.busy += busy * length;
      if (queued > 0) found.idleQueued += idle * length;
      else found.idleEmpty += idle * length;
      if (idle === 0 && queued > 0) found.saturated += length;
    }
    const wasLone = isLone;
    isLone = busy === 1 && queued === 0 && present >= 2;
    if (isLone && !wasLone) lone = Math.max(now, found.from);
    const end = Math.min(until, found.to);
    if (isLone && end - lone > found.lone.to - found.lone.from) {
      found.lone = { from: lone, to: end, idle: present - 1 };
    }
    if (next === Infinity) return found;
    now = next;
    for (let kind = 0; kind < events.length; kind++) {
      while (events[kind][places[kind]] <= now) places[kind]++;
    }
  }
}
