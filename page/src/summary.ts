/** Finds what matters in a recording, and says it in plain words. */

import type { Figures } from "./functions.ts";
import { bytes, counted, duration, group, oneLine, percent, word } from "./format.ts";
import { type Group, type Index } from "./index.ts";
import { Outcome } from "./recording.ts";
import { sweep, type Sweep } from "./sweep.ts";

export interface Finding {
  level: "problem" | "advice" | "fact";
  /** The sentence; parts in `code` are names from the program. */
  parts: (string | { code: string })[];
  /** The most important finding of a level has the largest. */
  weight: number;
  /** The task or the time that shows it. */
  row?: number;
  span?: { from: number; to: number };
}

/** Workers that are idle for a smaller share of the time are no finding. */
const IDLE = 0.3;
/** A call shorter than this costs less than its way through the pool, in nanoseconds. */
const SHORT = { threads: 20e3, processes: 200e3 };
/** A share of the time that a reader should know of. */
const LARGE = 0.1;

/** Returns the findings, the most important first. */
export function summarize(index: Index, all: Figures[]): Finding[] {
  const { recording } = index;
  if (recording.tasks.count === 0) {
    const text = recording.finished
      ? "No task was submitted during the recording."
      : "No task has been submitted since the recording began.";
    return [{ level: "fact", parts: [text], weight: 1 }];
  }
  const findings = [...failures(index), ...deaths(index), ...outcomes(index), ...slowest(index, all)];
  for (const pool of index.groups) {
    const times = sweep(index, pool);
    if (!(times.to > times.from)) continue;
    const name = index.groups.length > 1 ? pool.title : "";
    findings.push(
      ...idle(pool, times, name),
      ...straggler(index, pool, times, name),
      ...saturation(pool, times, name),
      ...blocked(pool, times, name),
      ...lateStart(pool, times, name),
    );
  }
  findings.push(...transfers(index, all));
  const levels = { problem: 0, advice: 1, fact: 2 };
  return findings.sort((a, b) => levels[a.level] - levels[b.level] || b.weight - a.weight);
}

function nameOf(index: Index, name: number): { code: string } {
  return { code: oneLine(index.recording.strings[name] || "(no name)", 60) };
}

/** "In pool: w" or "W", for a sentence about one of several pools. */
function lead(pool: string, text: string): string {
  return pool === "" ? text : `${pool}: ${text}`;
}

/** Calls that failed, by function, with their most frequent error. */
function failures(index: Index): Finding[] {
  const { tasks, strings } = index.recording;
  const byFunction = new Map<number, { count: number; calls: number; row: number; errors: Map<string, number> }>();
  for (let row = 0; row < tasks.count; row++) {
    const name = tasks.name[row];
    let found = byFunction.get(name);
    if (!found) byFunction.set(name, (found = { count: 0, calls: 0, row, errors: new Map() }));
    found.calls++;
    if (tasks.outcome[row] !== Outcome.error) continue;
    if (found.count++ === 0) found.row = row;
    const error = oneLine(strings[tasks.error[row]] ?? "", 90);
    found.errors.set(error, (found.errors.get(error) ?? 0) + 1);
  }
  const failed = [...byFunction].filter(([, found]) => found.count > 0).sort((a, b) => b[1].count - a[1].count);
  if (failed.length > 2) {
    const sum = failed.reduce((sum, [, found]) => sum + found.count, 0);
    const [name, first] = failed[0];
    const [error] = mostFrequent(first.errors);
    const parts: Finding["parts"] = [
      `${group(sum)} calls of ${word(failed.length)} functions failed, most often (${group(first.count)}) those of `,
      nameOf(index, name),
      ...(error === "" ? [] : [", with ", { code: error }]),
      ".",
    ];
    return [{ level: "problem", parts, weight: 100 + sum, row: first.row }];
  }
  return failed.map(([name, { count, calls, row, errors }]): Finding => {
    const [error, times] = mostFrequent(errors);
    const said = calls === 1 ? "The only call of " : `${group(count)} of ${counted(calls, "call")} of `;
    const parts: Finding["parts"] = [said, nameOf(index, name), " failed"];
    if (error !== "") {
      const rest = times === count ? "" : `${group(times)} × `;
      parts.push(`, ${count === 1 ? "with" : times === count ? "all with" : "most often with"} ${rest}`, { code: error });
    }
    return { level: "problem", parts: [...parts, "."], weight: 100 + count, row };
  });
}

/** Returns the most frequent error with its count; its kind alone if hardly two errors are the same. */
function mostFrequent(errors: Map<string, number>): [string, number] {
  const first = [...errors].reduce((a, b) => (b[1] > a[1] ? b : a));
  if (first[1] > 1 || errors.size === 1) return first;
  const kinds = new Map<string, number>();
  for (const [error, times] of errors) {
    const [kind] = error.split(":");
    kinds.set(kind, (kinds.get(kind) ?? 0) + times);
  }
  return [...kinds].reduce((a, b) => (b[1] > a[1] ? b : a));
}

/** Worker processes that ended badly. */
function deaths(index: Index): Finding[] {
  const { workers } = index.recording;
  const byReason = new Map<string, number[]>();
  workers.forEach((worker, i) => {
    const reason = reasonOf(worker.exit);
    if (reason !== "") byReason.set(reason, [...(byReason.get(reason) ?? []), i]);
  });
  return [...byReason].map(([reason, dead]): Finding => {
    const first = workers[dead[0]];
    const lane = index.lanes.find((lane) => lane.worker === dead[0]);
    const row = lane?.rows[lane.rows.length - 1];
    const finding: Finding = {
      level: "problem",
      parts: [`${counted(dead.length, "worker process", "worker processes")} ended by ${reason}.`],
      weight: 1e6 + dead.length,
    };
    if (row !== undefined) finding.row = row;
    else if (!Number.isNaN(first.end)) finding.span = { from: first.end, to: first.end };
    return finding;
  });
}

const SIGNALS: Record<number, string> = {
  4: "signal 4 (illegal instruction)",
  6: "signal 6 (abort)",
  7: "signal 7 (bus error)",
  8: "signal 8 (arithmetic error)",
  9: "signal 9 (killed: by a time limit, by the system when memory ran out, or by hand)",
  11: "signal 11 (segmentation fault)",
};

/** Returns the reason of a bad end; "" for a good one. */
export function reasonOf(exit: { code?: number; signal?: number } | null): string {
  if (exit?.signal !== undefined && exit.signal !== 15) return SIGNALS[exit.signal] ?? `signal ${exit.signal}`;
  if (exit?.code !== undefined && exit.code !== 0) return `exit code ${exit.code}`;
  return "";
}

/** Other outcomes that a reader should know of, and events that are missing. */
function outcomes(index: Index): Finding[] {
  const { tasks, dropped, finished } = index.recording;
  const counts = new Uint32Array(16);
  const firsts = new Int32Array(16).fill(-1);
  let retries = 0;
  let firstRetry = -1;
  for (let row = 0; row < tasks.count; row++) {
    const outcome = tasks.outcome[row];
    if (counts[outcome]++ === 0) firsts[outcome] = row;
    if (tasks.attempt[row] > 0 && retries++ === 0) firstRetry = row;
  }
  const findings: Finding[] = [];
  const add = (outcome: number, level: Finding["level"], one: string, many: string) => {
    const count = counts[outcome];
    if (count === 0) return;
    const text = count === 1 ? `One task ${one}.` : `${group(count)} tasks ${many}.`;
    findings.push({ level, parts: [text], weight: count, row: firsts[outcome] });
  };
  add(Outcome.died, "problem", "was lost because its worker process died", "were lost because their worker processes died");
  add(Outcome.timeLimit, "problem", "passed its time limit and was killed", "passed their time limits and were killed");
  add(Outcome.rejected, "problem", "could not start because the pool broke", "could not start because the pool broke");
  add(Outcome.terminated, "fact", "was terminated while it ran", "were terminated while they ran");
  add(Outcome.cancelled, "fact", "was cancelled before it started", "were cancelled before they started");
  if (finished) {
    add(Outcome.running, "fact", "still ran when the recording ended", "still ran when the recording ended");
    add(Outcome.pending, "fact", "had not started when the recording ended", "had not started when the recording ended");
  }
  if (retries > 0) {
    findings.push({ level: "advice", parts: [`${counted(retries, "run")} repeated a task that had failed.`], weight: retries, row: firstRetry });
  }
  if (dropped > 0) {
    const text = `${counted(dropped, "event")} ${dropped === 1 ? "is" : "are"} missing: a buffer was full, and the oldest events were dropped.`;
    findings.push({ level: "advice", parts: [text], weight: 1e9 });
  }
  return findings;
}

/** Workers that did nothing, and why. */
function idle(pool: Group, times: Sweep, name: string): Finding[] {
  const share = 1 - times.busy / times.capacity;
  const span = { from: times.from, to: times.to };
  // Idleness that one long task explains is told with this task.
  const lone = ((times.lone.to - times.lone.from) * times.lone.idle) / (times.capacity - times.busy);
  if (!(share >= IDLE) || (isLong(times) && lone > 0.5)) {
    const text = lead(name, `Workers were busy ${percent(1 - share)} of the time.`);
    return [{ level: "fact", parts: [text], weight: 1e3, span }];
  }
  const said = lead(name, `Workers were idle ${percent(share)} of the time`);
  const weight = 1e3 * share;
  const runs = pool.lanes.reduce((sum, lane) => sum + lane.rows.length, 0);
  const mean = times.busy / runs;
  const isShort = mean < SHORT[pool.kind === "processes" ? "processes" : "threads"] && runs >= 100;
  if (isShort) {
    const advice =
      pool.kind === "processes"
        ? ["raise ", { code: "chunksize" }, ", or do more in each call."]
        : ["do more in each call."];
    return [{ level: "advice", parts: [`${said} because tasks take ${duration(mean)}: `, ...advice], weight: 2 * weight, span }];
  }
  if (times.mostWorkers > times.mostBusy && times.mostQueued === 0) {
    const text = `${said}: no more than ${word(times.mostBusy)} of ${word(times.mostWorkers)} ever ran at once.`;
    return [{ level: "advice", parts: [text], weight, span }];
  }
  if (times.idleQueued > times.idleEmpty) {
    const text =
      pool.kind === "processes"
        ? `${said} although tasks were waiting: look at the size of arguments, and at the start of workers.`
        : `${said} although tasks were waiting.`;
    return [{ level: "advice", parts: [text], weight, span }];
  }
  return [{ level: "advice", parts: [`${said} because no task was waiting: submit more at once, or earlier.`], weight, span }];
}

/** Returns whether one worker was busy alone for a large part of the time. */
function isLong({ lone, from, to }: Sweep): boolean {
  return lone.idle >= 1 && lone.to - lone.from >= LARGE * (to - from);
}

/** One task that kept all others waiting. */
function straggler(index: Index, pool: Group, times: Sweep, name: string): Finding[] {
  const { lone } = times;
  const length = lone.to - lone.from;
  if (!isLong(times)) return [];
  const middle = lone.from + length / 2;
  for (const lane of pool.lanes) {
    const row = lane.rows.find((_, i) => lane.start[i] <= middle && middle < lane.stop[i]);
    if (row === undefined) continue;
    const ran = index.stop[row] - index.recording.tasks.start[row];
    const waiting = lone.idle === 1 ? "another worker" : `${word(lone.idle)} workers`;
    const alone = ran > length * 1.2 ? `, ${duration(length)} of them` : "";
    const parts: Finding["parts"] = [
      lead(name, "One task ("),
      nameOf(index, index.recording.tasks.name[row]),
      `) ran ${duration(ran)}${alone} while ${waiting} waited: start it first, or split it.`,
    ];
    return [{ level: "advice", parts, weight: (2e3 * length) / (times.to - times.from), row, span: lone }];
  }
  return [];
}

/** Workers that were all busy while tasks waited. */
function saturation(pool: Group, times: Sweep, name: string): Finding[] {
  const share = times.saturated / (times.to - times.from);
  if (share < 0.8 || times.mostQueued < 2 * times.mostWorkers) return [];
  const workers = times.mostWorkers === 1 ? "The only worker was" : `All ${word(times.mostWorkers)} workers were`;
  const text = `${workers} busy ${percent(share)} of the time, with up to ${group(times.mostQueued)} tasks waiting: more workers may help`;
  const { kind } = pool;
  const condition = kind === "processes" ? " if there are more cores." : " if the tasks wait for input, and not for the processor.";
  return [{ level: "fact", parts: [lead(name, text + condition)], weight: 500 * share, span: { from: times.from, to: times.to } }];
}

/** Tasks that wait, in a worker, for other tasks. */
function blocked(pool: Group, times: Sweep, name: string): Finding[] {
  let total = 0;
  let longest = 0;
  let span = { from: 0, to: 0 };
  for (const { waits } of pool.lanes) {
    for (let i = 0; i < waits.wait.length; i++) {
      const length = waits.stop[i] - waits.start[i];
      total += length;
      if (length > longest) {
        longest = length;
        span = { from: waits.start[i], to: waits.stop[i] };
      }
    }
  }
  const share = total / times.busy;
  if (!(share >= LARGE)) return [];
  const text = `Tasks spent ${percent(Math.min(1, share))} of their time in waits for other tasks: a callback, or a task that starts when the others are done, needs no worker meanwhile.`;
  return [{ level: "advice", parts: [lead(name, text)], weight: 1e3 * Math.min(1, share), span }];
}

/** Workers that took long before their first task. */
function lateStart(pool: Group, times: Sweep, name: string): Finding[] {
  if (pool.queue.enter.length === 0) return [];
  const submitted = pool.queue.enter[0];
  const late = times.from - submitted;
  const whole = times.to - submitted;
  if (late < LARGE * whole || late < 50e6) return [];
  const text = `The first task waited ${duration(late)} for a worker to start.`;
  return [{ level: "advice", parts: [lead(name, text)], weight: (500 * late) / whole, span: { from: submitted, to: times.from } }];
}

/** Functions some of whose calls take far longer than the others. */
function slowest(index: Index, all: Figures[]): Finding[] {
  const whole = all.reduce((sum, figures) => sum + (figures.total || 0), 0);
  return all
    .filter((it) => it.count >= 20 && it.p50 > 0 && it.max > 10 * it.p50 && it.max > LARGE * whole && it.longest >= 0)
    .map((it): Finding => ({
      level: "advice",
      parts: [
        "The longest call of ",
        nameOf(index, it.name),
        ` took ${duration(it.max)}; half of the calls took at most ${duration(it.p50)}.`,
      ],
      weight: (500 * it.max) / whole,
      row: it.longest,
    }));
}

/** Functions whose arguments and results are expensive to send. */
function transfers(index: Index, all: Figures[]): Finding[] {
  const findings: Finding[] = [];
  for (const it of all) {
    if (it.pickling > 0.2 * it.total && it.pickling > 10e6) {
      findings.push({
        level: "advice",
        parts: [
          "Pickling the calls of ",
          nameOf(index, it.name),
          ` took ${duration(it.pickling)}, the calls themselves ${duration(it.total)}: send less, or names of files.`,
        ],
        weight: 800,
        row: it.longest,
      });
    } else if (it.count > 0 && it.bytes / it.count > 8 << 20) {
      findings.push({
        level: "advice",
        parts: ["Each call of ", nameOf(index, it.name), ` sends and returns ${bytes(it.bytes / it.count)}.`],
        weight: 300,
        row: it.longest,
      });
    }
  }
  return findings;
}

/** Returns a finding as text. */
export function sentence(finding: Finding): string {
  return finding.parts.map((part) => (typeof part === "string" ? part : part.code)).join("");
}
