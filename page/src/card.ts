/** A task in words: for the card at the pointer, and for the panel of the chosen task. */

import { bytes, counted, duration, group, oneLine } from "./format.ts";
import type { Index } from "./index.ts";
import { isFailure, isStopped, Outcome, OUTCOMES } from "./recording.ts";

export interface Line {
  label: string;
  value: string;
  /** The number of a task that the line leads to. */
  task?: number;
  kind?: "error" | "code";
}

export interface Description {
  title: string;
  label: string;
  name: number;
  outcome: string;
  kind: "good" | "error" | "stopped" | "open";
  lines: Line[];
  error: string;
}

/** Describes a row; `isBrief` leaves out what has no room beside the pointer. */
export function describe(index: Index, row: number, isBrief: boolean): Description {
  const { tasks, strings, workers, pools, waits } = index.recording;
  const outcome = tasks.outcome[row];
  const start = tasks.start[row];
  const end = tasks.end[row];
  const lines: Line[] = [];
  const add = (label: string, value: string, more: Partial<Line> = {}) => lines.push({ label, value, ...more });

  if (!Number.isNaN(start)) add(outcome === Outcome.running ? "Running for" : "Ran", duration(index.stop[row] - start));
  if (Number.isFinite(index.waited[row])) add("Waited in the queue", duration(index.waited[row]));
  else if (outcome === Outcome.pending && !Number.isNaN(tasks.submit[row])) {
    add("Waiting for", duration(index.recording.duration - tasks.submit[row]));
  }
  const blocked = Array.from(index.waitsOf(tasks.task[row])).filter((wait) => waits.start[wait] >= start && waits.start[wait] <= index.stop[row]);
  if (blocked.length > 0) {
    const sum = blocked.reduce((sum, wait) => sum + (Number.isNaN(waits.end[wait]) ? index.stop[row] : waits.end[wait]) - waits.start[wait], 0);
    add("Waited for other tasks", duration(sum));
  }
  if (!Number.isNaN(tasks.submit[row])) add("Submitted at", duration(tasks.submit[row]));
  if (!Number.isNaN(start)) add("Started at", duration(start));
  if (!Number.isNaN(end)) add(isStopped(outcome) ? "Stopped at" : "Ended at", duration(end));
  const worker = workers[tasks.worker[row] - 1];
  if (worker) add("Worker", worker.pid > 0 && worker.pid !== index.recording.pid ? `${worker.name} (process ${worker.pid})` : worker.name);
  else if (pools[tasks.pool[row] - 1]) add("Pool", pools[tasks.pool[row] - 1].name);
  if (tasks.items[row] > 1) add("Part of a map", counted(tasks.items[row], "call"));
  if (tasks.attempt[row] > 0) add("Retries before", group(tasks.attempt[row]));
  if (tasks.sent[row] + tasks.received[row] > 0) {
    add("Sent, received", `${bytes(tasks.sent[row])}, ${bytes(tasks.received[row])}`);
  }
  if (tasks.pickling[row] > 0) add("Pickling", duration(tasks.pickling[row]));
  const text = strings[tasks.arguments[row]] ?? "";
  if (text !== "") add("Arguments", isBrief ? oneLine(text, 120) : text, { kind: "code" });
  if (!isBrief) {
    if (tasks.parent[row] !== 0) add("Submitted by", taskName(index, tasks.parent[row]), { task: tasks.parent[row] });
    for (const wait of blocked.slice(0, 8)) {
      if (waits.awaited[wait] !== 0) add("Waited for", taskName(index, waits.awaited[wait]), { task: waits.awaited[wait] });
    }
    for (const wait of index.waitsFor(tasks.task[row]).slice(0, 8)) {
      add("Awaited by", taskName(index, waits.waiter[wait]), { task: waits.waiter[wait] });
    }
    const others = index.rowsOf(tasks.task[row]).length;
    if (others > 1) add("Runs of this task", group(others));
  }
  return {
    title: strings[tasks.name[row]] || "(no name)",
    label: strings[tasks.label[row]] ?? "",
    name: tasks.name[row],
    outcome: OUTCOMES[outcome] ?? "unknown",
    kind: isFailure(outcome) ? "error" : isStopped(outcome) ? "stopped" : outcome <= Outcome.running ? "open" : "good",
    lines,
    error: strings[tasks.error[row]] ?? "",
  };
}

function taskName(index: Index, task: number): string {
  const [row] = index.rowsOf(task);
  const name = row === undefined ? "" : index.recording.strings[index.recording.tasks.name[row]];
  return `#${task}${name ? ` ${oneLine(name, 60)}` : ""}`;
}

/** Writes a description as elements. */
export function render(
  index: Index,
  row: number,
  colours: Uint8Array,
  options: { isBrief: boolean; crowd?: number; onTask?: (task: number) => void },
): DocumentFragment {
  const found = describe(index, row, options.isBrief);
  const fragment = document.createDocumentFragment();
  const title = element("div", "card-title");
  title.append(element("i", `swatch f${colours[found.name]}`), element("span", "card-name", options.isBrief ? oneLine(found.title, 90) : found.title));
  title.append(element("span", "card-number", `#${index.recording.tasks.task[row]}`));
  fragment.append(title);
  if (found.label) fragment.append(element("div", "card-label", options.isBrief ? oneLine(found.label, 120) : found.label));
  fragment.append(element("div", `outcome ${found.kind}`, found.outcome));
  if (found.error) fragment.append(element("pre", "error-text", options.isBrief ? cut(found.error, 400) : found.error));
  const list = element("dl", "");
  for (const { label, value, task, kind } of found.lines) {
    list.append(element("dt", "", label));
    const cell = element("dd", kind ?? "");
    if (task !== undefined && options.onTask) {
      const button = element("button", "link", value) as HTMLButtonElement;
      button.type = "button";
      button.addEventListener("click", () => options.onTask?.(task));
      cell.append(button);
    } else cell.textContent = value;
    list.append(cell);
  }
  fragment.append(list);
  if (options.crowd && options.crowd > 1) {
    fragment.append(element("div", "card-note", `One of ${group(options.crowd)} tasks at this pixel: zoom in to tell them apart.`));
  }
  return fragment;
}

function cut(text: string, length: number): string {
  return text.length > length ? `${text.slice(0, length)}…` : text;
}

export function element(tag: string, name: string, text?: string): HTMLElement {
  const made = document.createElement(tag);
  if (name) made.className = name;
  if (text !== undefined) made.textContent = text;
  return made;
}
