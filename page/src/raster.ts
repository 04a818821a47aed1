/**
 * Draws the runs of a lane as one line of pixels.
 *
 * The cost depends on the width and hardly on the number of runs: runs that are narrower than a pixel are
 * looked up by the pixel, with the sums that the lane has.
 */

import type { Lane } from "./index.ts";
import { gallop, lowerBound } from "./order.ts";
import { LEVELS, type Pixels } from "./theme.ts";

/** The runs that a pixel looks at to choose its colour. */
const SAMPLES = 8;

export interface Source {
  lane: Lane;
  /** The name of each row, and the colour of each name. */
  names: Uint32Array;
  colours: Uint8Array;
  /** Sums of matches of the lane's first 0, 1, 2… runs, while there is a search. */
  matched: Uint32Array | undefined;
}

export interface Target {
  /** One line of the picture, which has the background. */
  line: Uint32Array;
  /** The line of marks below it. */
  marks: Uint32Array;
  pixels: Pixels;
  from: number;
  /** Nanoseconds of a pixel. */
  scale: number;
  /** Runs at least this wide are noted in `wide`, by their places in the lane. */
  wideAt: number;
  wide: number[];
}

export function paint(source: Source, target: Target): void {
  const { lane, matched } = source;
  const { line, marks, pixels, from, scale, wideAt, wide } = target;
  const { start, stop, failed, stopped } = lane;
  const width = line.length;
  const to = from + width * scale;
  const count = start.length;
  let i = lowerBound(lane.reach, from);
  while (i < count && start[i] < to) {
    const left = (start[i] - from) / scale;
    const right = (stop[i] - from) / scale;
    const x = Math.max(0, Math.floor(left));
    let next = i + 1;
    let end = x + 1;
    let level = LEVELS - 1;
    let colour: number;
    if (right - left >= 1) {
      colour = source.colours[source.names[lane.rows[i]]];
      end = Math.min(width, Math.max(x + 1, Math.round(right)));
      if (right - left >= wideAt) wide.push(i);
    } else {
      // All runs that begin in this pixel, but not a last one that is wider.
      next = Math.max(i + 1, gallop(start, from + (x + 1) * scale, i));
      if (next > i + 1 && stop[next - 1] - start[next - 1] >= scale) next--;
      const covered = (lane.busy[next] - lane.busy[i]) / scale;
      level = Math.round(Math.min(1, covered) * (LEVELS - 1));
      colour = dominant(source, i, next);
    }
    const isDim = matched !== undefined && matched[next] === matched[i];
    const palette = isDim ? pixels.dim : pixels.fill;
    line.fill(palette[colour * LEVELS + level], x, end);
    // A line between this run and the one before it, which may end in the same pixel.
    if (end - x >= 4 && left >= 0) line[x] = pixels.lane;
    if (failed[next] > failed[i]) marks.fill(pixels.error, x, end);
    else if (stopped[next] > stopped[i]) marks.fill(pixels.stopped, x, end);
    i = next;
  }
}

/** Returns the colour with most time among some runs, by a sample if they are many. */
function dominant(source: Source, first: number, end: number): number {
  const { lane, names, colours } = source;
  const stride = Math.max(1, Math.floor((end - first) / SAMPLES));
  let best = -1;
  let most = -1;
  for (let i = first; i < end; i += stride) {
    const colour = colours[names[lane.rows[i]]];
    if (colour === best) continue;
    let time = 0;
    for (let j = i; j < end; j += stride) {
      if (colours[names[lane.rows[j]]] === colour) time += lane.busy[j + 1] - lane.busy[j];
    }
    if (time > most) {
      most = time;
      best = colour;
    }
  }
  return best;
}
