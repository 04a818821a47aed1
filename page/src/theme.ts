/** Colours: the style sheet has them, for both themes; the canvases take them from there. */

import type { Figures } from "./functions.ts";

/** Functions with a colour of their own; all others share the last colour. */
export const OWN_COLOURS = 8;

/** Steps of coverage of a pixel. */
export const LEVELS = 16;

export interface Theme {
  page: string;
  panel: string;
  lane: string;
  ink: string;
  muted: string;
  line: string;
  accent: string;
  queue: string;
  error: string;
  stopped: string;
  functions: string[];
  /** Whether text on a function's colour is dark. */
  darkText: boolean[];
  pixels: Pixels;
}

/** Colours as the pixels of a canvas. */
export interface Pixels {
  panel: number;
  lane: number;
  error: number;
  stopped: number;
  /** By colour and level: `[colour * LEVELS + level]`. */
  fill: Uint32Array;
  /** The same for tasks that a search has not found. */
  dim: Uint32Array;
}

/** Reads the theme that is in force. */
export function readTheme(): Theme {
  const style = getComputedStyle(document.documentElement);
  const get = (name: string) => style.getPropertyValue(`--${name}`).trim();
  const functions = Array.from({ length: OWN_COLOURS + 1 }, (_, i) => get(`f${i}`));
  const lane = get("lane");
  const error = get("error");
  const stopped = get("stopped");
  const fill = new Uint32Array(functions.length * LEVELS);
  const dim = new Uint32Array(functions.length * LEVELS);
  functions.forEach((colour, i) => {
    for (let level = 0; level < LEVELS; level++) {
      // A single short task is to be seen: the least level is not faint.
      const share = 0.35 + (0.65 * level) / (LEVELS - 1);
      fill[i * LEVELS + level] = pixel(mix(rgb(lane), rgb(colour), share));
      dim[i * LEVELS + level] = pixel(mix(rgb(lane), rgb(colour), share * 0.22));
    }
  });
  return {
    page: get("page"),
    panel: get("panel"),
    lane,
    ink: get("ink"),
    muted: get("muted"),
    line: get("line"),
    accent: get("accent"),
    queue: get("queue"),
    error,
    stopped,
    functions,
    darkText: functions.map((colour) => luminance(rgb(colour)) > 0.3),
    pixels: {
      panel: pixel(rgb(get("panel"))),
      lane: pixel(rgb(lane)),
      error: pixel(rgb(error)),
      stopped: pixel(rgb(stopped)),
      fill,
      dim,
    },
  };
}

type Rgb = [number, number, number];

/** Reads a colour such as #4477aa. */
export function rgb(colour: string): Rgb {
  const number = Number.parseInt(colour.slice(1), 16);
  return [(number >> 16) & 255, (number >> 8) & 255, number & 255];
}

/** Returns the relative luminance, from 0 to 1. */
export function luminance(colour: Rgb): number {
  const [r, g, b] = colour.map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
}

function mix(from: Rgb, to: Rgb, share: number): Rgb {
  return from.map((part, i) => Math.round(part + (to[i] - part) * share)) as Rgb;
}

function pixel([r, g, b]: Rgb): number {
  return ((255 << 24) | (b << 16) | (g << 8) | r) >>> 0;
}

/** Gives functions colours: those with most time get one of their own, and keep it. */
export class Colours {
  private readonly given = new Map<string, number>();

  /** Returns the colour of each function, by the index of its name. */
  assign(figures: Figures[], strings: string[]): Uint8Array {
    for (const { name } of figures) {
      if (this.given.size >= OWN_COLOURS) break;
      const text = strings[name] ?? "";
      if (!this.given.has(text)) this.given.set(text, this.given.size);
    }
    const colours = new Uint8Array(Math.max(1, strings.length)).fill(OWN_COLOURS);
    for (const { name } of figures) colours[name] = this.given.get(strings[name] ?? "") ?? OWN_COLOURS;
    return colours;
  }
}
