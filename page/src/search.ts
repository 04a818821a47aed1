/** Search in the texts of tasks. */

import type { Recording } from "./recording.ts";

export interface Matches {
  /** For each row 1 if it matches. */
  isMatch: Uint8Array;
  count: number;
}

/**
 * Finds rows whose name, label, arguments or error contain a text in any case. `#12` finds the task with this
 * number, and `=name` the function with exactly this name. Returns undefined if the text is empty.
 */
export function search(recording: Recording, query: string): Matches | undefined {
  const wanted = query.trim().toLowerCase();
  if (wanted === "") return undefined;
  const { tasks, strings } = recording;
  const isMatch = new Uint8Array(tasks.count);
  let count = 0;
  const number = /^#(\d+)$/.exec(wanted);
  if (number) {
    for (let row = 0; row < tasks.count; row++) {
      if (tasks.task[row] === Number(number[1])) count += isMatch[row] = 1;
    }
    return { isMatch, count };
  }
  const isExact = query.startsWith("=");
  const name = query.slice(1);
  const matches = Uint8Array.from(strings, (text) =>
    (isExact ? text === name : text.toLowerCase().includes(wanted)) ? 1 : 0,
  );
  // The empty text stands for "none".
  if (!isExact && matches.length > 0) matches[0] = 0;
  for (let row = 0; row < tasks.count; row++) {
    const found =
      matches[tasks.name[row]] |
      (isExact ? 0 : matches[tasks.label[row]] | matches[tasks.arguments[row]] | matches[tasks.error[row]]);
    if (found) count += isMatch[row] = 1;
  }
  return { isMatch, count };
}
