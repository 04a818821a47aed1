/** The lanes: draws them, and finds the task at a place. */

import { marks, moment, oneLine, withoutMiddle } from "./format.ts";
import type { Group, Index, Lane } from "./index.ts";
import { HEAD, type Layout, MARKS, place, type PlacedGroup, type PlacedLane, RULER } from "./layout.ts";
import { gallop, lowerBound, upperBound } from "./order.ts";
import { paint } from "./raster.ts";
import { isFailure } from "./recording.ts";
import { drawArrows } from "./arrows.ts";
import { reasonOf } from "./summary.ts";
import type { Theme } from "./theme.ts";
import type { Matches } from "./search.ts";
import type { View } from "./view.ts";

/** Runs at least this wide have their name in them, in CSS pixels. */
const NAMED = 30;
/** A place this near to a run counts as the run, in CSS pixels. */
const NEAR = 3;

export interface Hit {
  group?: Group;
  lane?: Lane;
  row?: number;
  /** Runs in the same pixel. */
  crowd: number;
  moment: number;
}

export class Timeline {
  readonly canvas: HTMLCanvasElement;
  private readonly scroller: HTMLElement;
  private readonly spacer: HTMLElement;
  private readonly context: CanvasRenderingContext2D;
  private picture: ImageData | undefined;
  private words = new Uint32Array(0);
  private matched = new Map<Lane, Uint32Array>();
  private hatch: CanvasPattern | null = null;
  private hatchOf: Theme | undefined;
  layout: Layout;
  index: Index;
  colours: Uint8Array = new Uint8Array(1);
  selected = -1;
  hovered = -1;
  /** The moment under the pointer, or NaN. */
  pointed = NaN;
  /** The span that is being chosen, or undefined. */
  range: { from: number; to: number } | undefined;

  constructor(
    scroller: HTMLElement,
    index: Index,
    readonly view: View,
  ) {
    this.scroller = scroller;
    this.spacer = scroller.querySelector(".spacer") as HTMLElement;
    this.canvas = scroller.querySelector("canvas") as HTMLCanvasElement;
    this.context = this.canvas.getContext("2d", { alpha: false }) as CanvasRenderingContext2D;
    this.index = index;
    this.layout = place(index, scroller.clientHeight);
  }

  setIndex(index: Index): void {
    this.index = index;
    this.matched.clear();
    this.resize();
  }

  /** Takes the matches of a search, or undefined if there is none. */
  setMatches(matches: Matches | undefined): void {
    this.matched.clear();
    if (!matches) return;
    for (const lane of this.index.lanes) {
      const sums = new Uint32Array(lane.rows.length + 1);
      for (let i = 0; i < lane.rows.length; i++) sums[i + 1] = sums[i] + matches.isMatch[lane.rows[i]];
      this.matched.set(lane, sums);
    }
  }

  /** Fits the canvas to its place; `gutter` is the width of the labels. */
  resize(gutter = this.gutter): void {
    this.gutter = gutter;
    this.layout = place(this.index, this.scroller.clientHeight);
    this.spacer.style.height = `${this.layout.height}px`;
    const width = this.scroller.clientWidth;
    const height = this.scroller.clientHeight;
    const ratio = devicePixelRatio || 1;
    this.ratio = ratio;
    this.canvas.style.width = `${width}px`;
    this.canvas.style.height = `${height}px`;
    this.canvas.width = Math.max(1, Math.round(width * ratio));
    this.canvas.height = Math.max(1, Math.round(height * ratio));
    this.view.width = Math.max(1, width - gutter);
    this.picture = undefined;
  }

  private gutter = 0;
  private ratio = 1;

  /** Scrolls until a lane is visible. */
  reveal(lane: Lane): void {
    const placed = this.layout.byLane.get(lane);
    if (!placed) return;
    const { scrollTop, clientHeight } = this.scroller;
    if (placed.top < scrollTop + RULER + HEAD) this.scroller.scrollTop = placed.top - RULER - HEAD;
    else if (placed.top + placed.height > scrollTop + clientHeight) {
      this.scroller.scrollTop = placed.top + placed.height - clientHeight + 8;
    }
  }

  draw(theme: Theme): void {
    this.drawRuns(theme);
    const { context, ratio } = this;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    const width = this.canvas.width / ratio;
    const height = this.canvas.height / ratio;
    context.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    context.textBaseline = "middle";
    const { step, moments } = marks(this.view.from, this.view.to, this.view.width / 110);

    context.save();
    context.beginPath();
    context.rect(this.gutter, 0, this.view.width, height);
    context.clip();
    context.translate(this.gutter, -this.scroller.scrollTop);
    this.drawGrid(theme, moments);
    for (const placed of this.layout.groups) this.drawHead(theme, placed);
    this.drawWaits(theme);
    this.drawNames(theme);
    this.drawEnds(theme);
    drawArrows(context, theme, this);
    this.drawOutline(theme, this.hovered, theme.muted, 1);
    this.drawOutline(theme, this.selected, theme.ink, 2);
    context.restore();

    this.drawGutter(theme, height);
    this.drawRuler(theme, width, step, moments);
    this.drawPointed(theme, height);
  }

  /** The lanes that are visible. */
  visible(): PlacedLane[] {
    const top = this.scroller.scrollTop;
    const bottom = top + this.scroller.clientHeight;
    return this.layout.lanes.filter((lane) => lane.top + lane.height > top && lane.top < bottom);
  }

  private wide: { placed: PlacedLane; i: number }[] = [];

  /** Fills the picture with the runs, and writes it to the canvas. */
  private drawRuns(theme: Theme): void {
    const { canvas, context, ratio, view } = this;
    const { width, height } = canvas;
    if (!this.picture || this.picture.width !== width || this.picture.height !== height) {
      this.picture = context.createImageData(width, height);
      this.words = new Uint32Array(this.picture.data.buffer);
    }
    const { pixels } = theme;
    const { words } = this;
    words.fill(pixels.panel);
    this.wide = [];
    const left = Math.round(this.gutter * ratio);
    const line = new Uint32Array(Math.max(0, width - left));
    const foot = new Uint32Array(line.length);
    const { tasks, workers, duration } = this.index.recording;
    const scrolled = this.scroller.scrollTop;
    for (const placed of this.visible()) {
      const { lane } = placed;
      const worker = workers[lane.worker];
      const born = worker && !Number.isNaN(worker.start) ? worker.start : -Infinity;
      const died = worker && !Number.isNaN(worker.end) ? worker.end : Math.max(duration, this.index.to);
      const column = (moment: number) => Math.min(line.length, Math.max(0, Math.round(view.x(moment) * ratio)));
      line.fill(pixels.panel);
      if (died > view.from && born < view.to) line.fill(pixels.lane, column(born), column(died));
      foot.set(line);
      const wide: number[] = [];
      paint(
        { lane, names: tasks.name, colours: this.colours, matched: this.matched.get(lane) },
        { line, marks: foot, pixels, from: view.from, scale: view.scale / ratio, wideAt: NAMED * ratio, wide },
      );
      for (const i of wide) this.wide.push({ placed, i });
      const top = Math.round((placed.top - scrolled) * ratio);
      const bottom = Math.round((placed.top + placed.height - scrolled) * ratio);
      const marksTop = bottom - Math.max(2, Math.round(Math.min(MARKS, placed.height / 4) * ratio));
      const hasMark = (mark: number) => mark === pixels.error || mark === pixels.stopped;
      const gap = line.map((pixel, x) => (hasMark(foot[x]) ? pixels.lane : pixel));
      for (let x = 0; x < foot.length; x++) if (!hasMark(foot[x])) foot[x] = line[x];
      for (let y = Math.max(0, top); y < Math.min(height, bottom); y++) {
        words.set(y >= marksTop ? foot : y === marksTop - 1 ? gap : line, y * width + left);
      }
    }
    context.setTransform(1, 0, 0, 1, 0, 0);
    context.putImageData(this.picture, 0, 0);
  }

  private drawGrid(theme: Theme, moments: number[]): void {
    const { context, view } = this;
    context.fillStyle = theme.line;
    context.globalAlpha = 0.6;
    for (const { top, height } of this.layout.groups) {
      for (const at of moments) context.fillRect(Math.round(view.x(at)), top, 1, height - 2);
    }
    context.globalAlpha = 1;
  }

  /** The number of tasks in a pool's queue over time, and the tasks that left it without a run. */
  private drawHead(theme: Theme, { group, top, height, hasQueue }: PlacedGroup): void {
    const { context, view } = this;
    const { scrollTop, clientHeight } = this.scroller;
    if (top + height < scrollTop || top > scrollTop + clientHeight) return;
    const base = top + height - 5;
    if (hasQueue) this.drawQueue(theme, group, base, height - 12);
    context.fillStyle = theme.line;
    context.fillRect(0, base, view.width, 1);
    this.drawUnstarted(theme, group, base);
  }

  private drawQueue(theme: Theme, group: Group, base: number, room: number): void {
    const { context, view } = this;
    const step = view.scale * 2;
    const from = Math.floor(view.from / step) * step;
    const values: number[] = [];
    let most = 0;
    for (let at = from; at < view.to; at += step) {
      const value = at > this.index.to ? 0 : group.queue.mean(at, at + step);
      values.push(value);
      most = Math.max(most, value);
    }
    if (most > 0) {
      context.beginPath();
      context.moveTo(view.x(from), base);
      values.forEach((value, i) => {
        const y = base - (value === 0 ? 0 : Math.max(1, (value / most) * room));
        context.lineTo(view.x(from + i * step), y);
        context.lineTo(view.x(from + (i + 1) * step), y);
      });
      context.lineTo(view.x(from + values.length * step), base);
      context.closePath();
      context.fillStyle = theme.queue;
      context.fill();
    }
  }

  private drawUnstarted(theme: Theme, group: Group, base: number): void {
    const { context, view } = this;
    const { outcome } = this.index.recording.tasks;
    let i = lowerBound(group.unstartedEnd, view.from);
    while (i < group.unstartedEnd.length && group.unstartedEnd[i] <= view.to) {
      const x = Math.floor(view.x(group.unstartedEnd[i]));
      const next = Math.max(i + 1, gallop(group.unstartedEnd, view.moment(x + 1), i));
      context.fillStyle = isFailure(outcome[group.unstarted[i]]) ? theme.error : theme.stopped;
      context.fillRect(x - 1, base - 5, 2, 5);
      i = next;
    }
  }

  /** Hatches the parts of runs in which the task waited for another. */
  private drawWaits(theme: Theme): void {
    const { context, view } = this;
    if (this.hatchOf !== theme) {
      this.hatchOf = theme;
      this.hatch = makeHatch(context, theme);
    }
    if (!this.hatch) return;
    context.fillStyle = this.hatch;
    for (const { lane, top, height } of this.visible()) {
      const { start, stop } = lane.waits;
      let i = lowerBound(stop, view.from);
      while (i < start.length && start[i] < view.to) {
        const x = Math.max(0, view.x(start[i]));
        const right = Math.min(view.width, view.x(stop[i]));
        if (right - x >= 1) {
          context.fillRect(x, top, right - x, height);
          i++;
        } else {
          i = Math.max(i + 1, gallop(start, view.moment(x + 1), i));
        }
      }
    }
  }

  /** Writes names into runs that have room for them. */
  private drawNames(theme: Theme): void {
    const { context, view } = this;
    const { tasks, strings } = this.index.recording;
    for (const { placed, i } of this.wide) {
      if (placed.height < 11) continue;
      const row = placed.lane.rows[i];
      const sums = this.matched.get(placed.lane);
      if (sums && sums[i + 1] === sums[i]) continue;
      const left = Math.max(0, view.x(placed.lane.start[i]));
      const right = Math.min(view.width, view.x(placed.lane.stop[i]));
      if (right - left < NAMED) continue;
      const fits = Math.floor((right - left - 8) / 6);
      if (fits < 4) continue;
      const name = strings[tasks.name[row]] || "(no name)";
      // The last part of a qualified name says more than the first.
      const label = strings[tasks.label[row]];
      // The first letters of a label say too little.
      if (label && fits < Math.min(label.length, 9)) continue;
      const last = name.length > fits ? name.slice(name.lastIndexOf(".") + 1) : name;
      const short = label ? withoutMiddle(label, fits) : oneLine(last, fits);
      if (placed.lane.waits.start.length > 0) {
        // The name may lie on a hatched part.
        context.strokeStyle = theme.functions[this.colours[tasks.name[row]]];
        context.lineWidth = 4;
        context.strokeText(short, left + 5, placed.top + placed.height / 2 + 0.5);
      }
      context.fillStyle = theme.darkText[this.colours[tasks.name[row]]] ? "#15171a" : "#ffffff";
      context.fillText(short, left + 5, placed.top + placed.height / 2 + 0.5);
    }
  }

  /** Marks worker processes that ended badly. */
  private drawEnds(theme: Theme): void {
    const { context, view } = this;
    const { workers } = this.index.recording;
    for (const { lane, top, height } of this.visible()) {
      const worker = workers[lane.worker];
      if (!worker || Number.isNaN(worker.end) || reasonOf(worker.exit) === "") continue;
      const x = Math.round(view.x(worker.end));
      if (x < 0 || x > view.width) continue;
      const size = Math.min(5, height / 2 - 1);
      const middle = top + height / 2;
      context.strokeStyle = theme.error;
      context.lineWidth = 2;
      context.beginPath();
      context.moveTo(x + 2, middle - size);
      context.lineTo(x + 2 + 2 * size, middle + size);
      context.moveTo(x + 2 + 2 * size, middle - size);
      context.lineTo(x + 2, middle + size);
      context.stroke();
    }
  }

  /** The outline of a run, with a line for its time in the queue. */
  private drawOutline(theme: Theme, row: number, colour: string, width: number): void {
    if (row < 0) return;
    const { context, view, index } = this;
    const { tasks } = index.recording;
    const lane = index.laneOf(row);
    const placed = lane && this.layout.byLane.get(lane);
    if (!placed) return;
    const left = clamp(view.x(tasks.start[row]), -10, view.width + 10);
    const right = clamp(view.x(index.stop[row]), -10, view.width + 10);
    context.strokeStyle = colour;
    context.lineWidth = width;
    context.strokeRect(left - 0.5, placed.top - 0.5, Math.max(2, right - left) + 1, placed.height + 1);
    if (!(index.waited[row] > 0)) return;
    const submitted = clamp(view.x(tasks.start[row] - index.waited[row]), -10, view.width + 10);
    // Below the lane, where it hides no other run.
    const y = placed.top + placed.height + 0.5;
    context.strokeStyle = theme.ink;
    context.lineWidth = 1;
    context.setLineDash([3, 2]);
    context.beginPath();
    context.moveTo(submitted, y);
    context.lineTo(left, y);
    context.stroke();
    context.setLineDash([]);
    context.fillStyle = theme.ink;
    context.fillRect(submitted - 1, y - 3, 2, 6);
  }

  private drawGutter(theme: Theme, height: number): void {
    const { context } = this;
    context.fillStyle = theme.panel;
    context.fillRect(0, 0, this.gutter, height);
    context.save();
    context.beginPath();
    context.rect(0, 0, this.gutter - 8, height);
    context.clip();
    context.translate(0, -this.scroller.scrollTop);
    const family = getComputedStyle(this.canvas).fontFamily;
    for (const { group, top, hasQueue } of this.layout.groups) {
      context.font = `600 11px ${family}`;
      context.fillStyle = theme.ink;
      context.fillText(fit(context, oneLine(group.title, 80), this.gutter - 22), 12, top + (hasQueue ? 13 : 11));
      if (!hasQueue) continue;
      context.font = `11px ${family}`;
      context.fillStyle = theme.muted;
      context.fillText("waiting in the queue", 12, top + 26);
    }
    context.textAlign = "right";
    for (const { lane, top, height } of this.visible()) {
      context.font = `${height < 11 ? Math.max(7, height) : 11}px ${family}`;
      context.fillStyle = theme.muted;
      context.fillText(lane.label, this.gutter - 10, top + height / 2 + 0.5);
    }
    context.restore();
  }

  private drawRuler(theme: Theme, width: number, step: number, moments: number[]): void {
    const { context, view } = this;
    context.fillStyle = theme.panel;
    context.fillRect(0, 0, width, RULER);
    context.fillStyle = theme.line;
    context.fillRect(0, RULER - 1, width, 1);
    context.font = `11px ${getComputedStyle(this.canvas).fontFamily}`;
    for (const at of moments) {
      const x = this.gutter + Math.round(view.x(at));
      context.fillStyle = theme.line;
      context.fillRect(x, RULER - 6, 1, 6);
      context.fillStyle = theme.muted;
      context.fillText(moment(at, step), x + 4, RULER / 2);
    }
    context.fillStyle = theme.panel;
    context.fillRect(0, 0, this.gutter - 1, RULER - 1);
  }

  private drawPointed(theme: Theme, height: number): void {
    const { context, view } = this;
    if (this.range) {
      const left = this.gutter + clamp(view.x(Math.min(this.range.from, this.range.to)), 0, view.width);
      const right = this.gutter + clamp(view.x(Math.max(this.range.from, this.range.to)), 0, view.width);
      context.globalAlpha = 0.15;
      context.fillStyle = theme.accent;
      context.fillRect(left, 0, right - left, height);
      context.globalAlpha = 1;
      const length = Math.abs(this.range.to - this.range.from);
      context.fillStyle = theme.ink;
      context.fillText(moment(length, length / 100), left + 6, RULER + 10);
    }
    const x = view.x(this.pointed);
    if (!(x >= 0 && x <= view.width)) return;
    context.fillStyle = theme.muted;
    context.globalAlpha = 0.5;
    context.fillRect(this.gutter + Math.round(x), 0, 1, height);
    context.globalAlpha = 1;
  }

  /** Finds the task at a place of the canvas, in CSS pixels. */
  hit(x: number, y: number): Hit | undefined {
    if (x < this.gutter || y < RULER) return undefined;
    const { view } = this;
    const at = view.moment(x - this.gutter);
    const content = y + this.scroller.scrollTop;
    const placed = this.layout.lanes.find((lane) => content >= lane.top - 1 && content <= lane.top + lane.height + 1);
    if (!placed) return this.hitQueue(at, content);
    const { lane, group } = placed;
    const hit: Hit = { group, lane, crowd: 0, moment: at };
    const found = nearest(lane, at, view.scale * NEAR);
    if (found < 0) return hit;
    hit.row = lane.rows[found];
    const first = lowerBound(lane.start, at - view.scale / 2);
    hit.crowd = Math.max(1, lowerBound(lane.start, at + view.scale / 2, first) - first);
    return hit;
  }

  private hitQueue(at: number, content: number): Hit | undefined {
    const head = this.layout.groups.find(({ top, height }) => content >= top && content < top + height);
    if (!head) return undefined;
    const { group } = head;
    const hit: Hit = { group, crowd: 0, moment: at };
    const near = this.view.scale * NEAR;
    const first = lowerBound(group.unstartedEnd, at - near);
    const end = upperBound(group.unstartedEnd, at + near, first);
    if (end > first) {
      hit.row = group.unstarted[first];
      hit.crowd = end - first;
    }
    return hit;
  }
}

/** Returns the place of the run at a moment, or of one near it; -1 if there is none. */
export function nearest(lane: Lane, at: number, near: number): number {
  const next = upperBound(lane.start, at);
  for (let i = next - 1; i >= 0 && lane.reach[i] >= at - near; i--) {
    if (lane.stop[i] >= at) return i;
    if (next - i > 1000) break;
  }
  let best = -1;
  let distance = near;
  if (next > 0 && at - lane.stop[next - 1] <= distance) {
    best = next - 1;
    distance = at - lane.stop[best];
  }
  if (next < lane.start.length && lane.start[next] - at < distance) best = next;
  return best;
}

function makeHatch(context: CanvasRenderingContext2D, theme: Theme): CanvasPattern | null {
  const tile = document.createElement("canvas");
  tile.width = tile.height = 6;
  const drawing = tile.getContext("2d");
  if (!drawing) return null;
  drawing.strokeStyle = theme.lane;
  drawing.lineWidth = 2;
  drawing.beginPath();
  for (const shift of [-6, 0, 6]) {
    drawing.moveTo(shift - 1, 7);
    drawing.lineTo(shift + 7, -1);
  }
  drawing.stroke();
  return context.createPattern(tile, "repeat");
}

/** Returns a text, cut at the width that it may have. */
function fit(context: CanvasRenderingContext2D, text: string, width: number): string {
  if (context.measureText(text).width <= width) return text;
  let length = text.length;
  while (length > 1 && context.measureText(`${text.slice(0, length)}…`).width > width) length--;
  return `${text.slice(0, length)}…`;
}

export function clamp(value: number, least: number, most: number): number {
  return Math.min(most, Math.max(least, value));
}

