/** Arrows between tasks: from a task to one that waited for it, and from a task to those it submitted. */

import type { PlacedLane } from "./layout.ts";
import type { Theme } from "./theme.ts";
import { clamp, type Timeline } from "./timeline.ts";
import { lowerBound, upperBound } from "./order.ts";

/** Up to this many waits in the picture have their arrows; more would hide the lanes. */
const MOST = 120;

export function drawArrows(context: CanvasRenderingContext2D, theme: Theme, timeline: Timeline): void {
  const { index, view } = timeline;
  const { tasks } = index.recording;
  const spans = timeline.visible().map(({ lane }) => {
    const first = lowerBound(lane.waits.stop, view.from);
    return { lane, first, end: upperBound(lane.waits.start, view.to, first) };
  });
  const count = spans.reduce((sum, { first, end }) => sum + Math.max(0, end - first), 0);
  if (count <= MOST) {
    for (const { lane, first, end } of spans) {
      for (let i = first; i < end; i++) drawWait(context, theme, timeline, lane.waits.wait[i], false);
    }
  }
  for (const row of new Set([timeline.hovered, timeline.selected])) {
    if (row < 0) continue;
    const task = tasks.task[row];
    for (const wait of index.waitsOf(task).subarray(0, MOST)) drawWait(context, theme, timeline, wait, true);
    for (const wait of index.waitsFor(task).subarray(0, MOST)) drawWait(context, theme, timeline, wait, true);
    if (tasks.parent[row] !== 0) drawSubmission(context, theme, timeline, row);
  }
}

/** An arrow from the end of the awaited task to the end of the wait. */
function drawWait(context: CanvasRenderingContext2D, theme: Theme, timeline: Timeline, wait: number, isStrong: boolean): void {
  const { index, view } = timeline;
  const { waits, duration } = index.recording;
  if (waits.awaited[wait] === 0) return;
  const end = Number.isNaN(waits.end[wait]) ? duration : waits.end[wait];
  const awaited = index.rowAt(waits.awaited[wait], Math.min(end, duration));
  const waiter = index.rowAt(waits.waiter[wait], waits.start[wait]);
  const from = place(timeline, awaited);
  const to = place(timeline, waiter);
  if (!from || !to || awaited === undefined) return;
  arrow(
    context,
    { x: limit(view.x(Math.min(index.stop[awaited], end)), view.width), y: from.top + from.height / 2 },
    { x: limit(view.x(end), view.width), y: edge(to, from) },
    isStrong ? theme.ink : theme.muted,
    isStrong ? 1.5 : 1,
    [],
  );
}

/** A dotted arrow from the task that submitted a task to the begin of its wait. */
function drawSubmission(context: CanvasRenderingContext2D, theme: Theme, timeline: Timeline, row: number): void {
  const { index, view } = timeline;
  const { tasks } = index.recording;
  const submitted = tasks.submit[row];
  if (Number.isNaN(submitted)) return;
  const from = place(timeline, index.rowAt(tasks.parent[row], submitted));
  const to = place(timeline, row);
  if (!from || !to) return;
  const x = limit(view.x(submitted), view.width);
  arrow(context, { x, y: from.top + from.height / 2 }, { x, y: edge(to, from) }, theme.ink, 1, [2, 2]);
}

function place(timeline: Timeline, row: number | undefined): PlacedLane | undefined {
  const lane = row === undefined ? undefined : timeline.index.laneOf(row);
  return lane && timeline.layout.byLane.get(lane);
}

/** The side of a lane that is nearer to another lane. */
function edge(lane: PlacedLane, other: PlacedLane): number {
  return lane.top > other.top ? lane.top : lane.top + lane.height;
}

function limit(x: number, width: number): number {
  return clamp(x, -2 * width, 3 * width);
}

interface Point {
  x: number;
  y: number;
}

function arrow(context: CanvasRenderingContext2D, from: Point, to: Point, colour: string, width: number, dash: number[]): void {
  const down = to.y >= from.y ? 1 : -1;
  const bend = Math.max(8, Math.min(40, Math.abs(to.y - from.y) / 2));
  context.strokeStyle = context.fillStyle = colour;
  context.lineWidth = width;
  context.setLineDash(dash);
  context.beginPath();
  context.moveTo(from.x, from.y);
  context.bezierCurveTo(from.x + bend, from.y, to.x, to.y - down * bend, to.x, to.y - down * 4);
  context.stroke();
  context.setLineDash([]);
  context.beginPath();
  context.moveTo(to.x, to.y);
  context.lineTo(to.x - 3.5, to.y - down * 6);
  context.lineTo(to.x + 3.5, to.y - down * 6);
  context.fill();
}
