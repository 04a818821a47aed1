/** The curves over time: tasks per second, busy workers, and the length of the queue. */

import uPlot from "uplot";
import { short } from "./format.ts";
import type { Index } from "./index.ts";
import type { Theme } from "./theme.ts";
import type { View } from "./view.ts";

/** Pixels of a step of a curve. */
const STEP = { rate: 8, level: 3 };
const HEIGHT = 52;

export interface Curve {
  title: string;
  /** The value of a span. */
  value: (index: Index, from: number, to: number) => number;
  step: number;
  colour: "accent" | "queue";
}

export const CURVES: Curve[] = [
  {
    title: "Tasks per second",
    value: (index, from, to) => index.done.count(from, to) / ((to - from) / 1e9),
    step: STEP.rate,
    colour: "accent",
  },
  { title: "Busy workers", value: (index, from, to) => index.busy.mean(from, to), step: STEP.level, colour: "accent" },
  { title: "Tasks in queues", value: (index, from, to) => index.queue.mean(from, to), step: STEP.level, colour: "queue" },
];

/** Returns the values of a curve for the visible span, at moments that do not depend on where it begins. */
export function sample(curve: Curve, index: Index, view: View): [number[], number[]] {
  const step = view.scale * curve.step;
  const moments: number[] = [];
  const values: number[] = [];
  for (let from = Math.floor(view.from / step) * step; from < view.to + step; from += step) {
    moments.push(from);
    const isOutside = from + step <= index.from || from >= index.to;
    values.push(isOutside ? 0 : curve.value(index, from, Math.min(from + step, Math.max(index.to, from + 1))));
  }
  return [moments, values];
}

interface Chart {
  curve: Curve;
  plot: uPlot;
  value: HTMLElement;
  most: number;
}

/** A value in few characters; a large mean is shown as a whole number. */
function rounded(value: number): string {
  return short(value >= 10 ? Math.round(value) : value);
}

export class Charts {
  private charts: Chart[] = [];

  constructor(
    private readonly container: HTMLElement,
    private readonly view: View,
    private readonly onSelect: (from: number, to: number) => void,
    private readonly onPoint: (moment: number) => void,
  ) {}

  /** Makes the charts anew, for a theme and a width. */
  rebuild(theme: Theme, gutter: number): void {
    for (const { plot } of this.charts) plot.destroy();
    this.container.replaceChildren();
    this.charts = CURVES.map((curve) => this.make(curve, theme, gutter));
  }

  private make(curve: Curve, theme: Theme, gutter: number): Chart {
    const { view } = this;
    const box = document.createElement("div");
    box.className = "chart";
    const title = document.createElement("div");
    title.className = "chart-title";
    title.append(curve.title);
    const value = document.createElement("strong");
    title.append(value);
    box.append(title);
    this.container.append(box);
    const colour = theme[curve.colour];
    const plot = new uPlot(
      {
        width: Math.max(gutter + 10, this.container.clientWidth),
        height: HEIGHT,
        padding: [6, 0, 4, 0],
        legend: { show: false },
        cursor: {
          y: false,
          points: { show: false },
          drag: { x: true, y: false, setScale: false },
          bind: { dblclick: () => null },
        },
        scales: {
          x: { time: false, range: () => [view.from, view.to] },
          y: { range: (_, __, most) => [0, most > 0 ? most * 1.05 : 1] },
        },
        axes: [
          { show: false },
          {
            size: gutter,
            gap: 6,
            stroke: theme.muted,
            font: `10.5px ${getComputedStyle(this.container).fontFamily}`,
            splits: (plot) => (plot.scales.y?.max === 1 ? [0, 1] : [0, (plot.scales.y?.max ?? 1) / 1.05]),
            values: (_, splits) => splits.map(rounded),
            grid: { stroke: theme.line, width: 1 },
            ticks: { show: false },
          },
        ],
        series: [
          {},
          {
            stroke: colour,
            fill: `${colour}${curve.colour === "queue" ? "" : "2e"}`,
            width: curve.colour === "queue" ? 0 : 1.25,
            points: { show: false },
            ...(uPlot.paths.stepped ? { paths: uPlot.paths.stepped({ align: 1 }) } : {}),
          },
        ],
        hooks: {
          setSelect: [
            (plot) => {
              const { left, width } = plot.select;
              if (width > 3) this.onSelect(view.moment(left), view.moment(left + width));
              plot.setSelect({ left: 0, top: 0, width: 0, height: 0 }, false);
            },
          ],
          setCursor: [
            (plot) => {
              if (plot.cursor.event) {
                const left = plot.cursor.left ?? -1;
                this.onPoint(left < 0 ? NaN : view.moment(left));
              }
            },
          ],
        },
      },
      [[], []],
      box,
    );
    plot.root.setAttribute("role", "img");
    return { curve, plot, value, most: 0 };
  }

  draw(index: Index): void {
    for (const chart of this.charts) {
      const data = sample(chart.curve, index, this.view);
      chart.most = data[1].reduce((a, b) => Math.max(a, b), 0);
      chart.plot.setData(data, true);
      chart.plot.root.setAttribute("aria-label", `${chart.curve.title}: up to ${short(chart.most)}`);
    }
    this.point(index, NaN);
  }

  /** Shows the values at a moment. */
  point(index: Index, moment: number): void {
    const isThere = moment >= this.view.from && moment <= this.view.to;
    for (const { curve, plot, value } of this.charts) {
      const left = isThere ? this.view.x(moment) : -10;
      plot.setCursor({ left, top: isThere ? 5 : -10 }, false);
      const step = this.view.scale * curve.step;
      const from = Math.floor(moment / step) * step;
      value.textContent = isThere ? rounded(curve.value(index, from, from + step)) : "";
    }
  }
}
