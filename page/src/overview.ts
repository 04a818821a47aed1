/** The strip that shows the whole recording, with the visible span as a window. */

import type { Index } from "./index.ts";
import type { Theme } from "./theme.ts";
import { clamp } from "./timeline.ts";
import type { View } from "./view.ts";

/** Pixels beside an edge of the window that move this edge. */
const EDGE = 6;

export class Overview {
  private readonly context: CanvasRenderingContext2D;
  private curve: Float64Array = new Float64Array(0);
  private gutter = 0;
  private width = 1;
  private height = 1;

  constructor(
    readonly canvas: HTMLCanvasElement,
    private readonly view: View,
    private readonly onChange: () => void,
  ) {
    this.context = canvas.getContext("2d") as CanvasRenderingContext2D;
    this.listen();
  }

  resize(index: Index, gutter: number): void {
    const ratio = devicePixelRatio || 1;
    this.gutter = gutter;
    this.width = Math.max(1, this.canvas.clientWidth - gutter);
    this.height = this.canvas.clientHeight;
    this.canvas.width = Math.round(this.canvas.clientWidth * ratio);
    this.canvas.height = Math.round(this.height * ratio);
    const steps = Math.ceil(this.width / 2);
    this.whole = { from: index.from, to: index.to };
    const step = (index.to - index.from) / steps;
    this.curve = Float64Array.from({ length: steps }, (_, i) =>
      index.busy.mean(index.from + i * step, index.from + (i + 1) * step),
    );
  }

  private whole = { from: 0, to: 1 };

  private x(moment: number): number {
    const { from, to } = this.whole;
    return this.gutter + clamp((moment - from) / (to - from), 0, 1) * this.width;
  }

  private moment(x: number): number {
    const { from, to } = this.whole;
    return from + ((x - this.gutter) / this.width) * (to - from);
  }

  draw(theme: Theme): void {
    const { context, canvas, height, gutter, width } = this;
    const ratio = devicePixelRatio || 1;
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, canvas.width, canvas.height);
    context.fillStyle = theme.lane;
    context.fillRect(gutter, 0, width, height);
    const most = this.curve.reduce((a, b) => Math.max(a, b), 0);
    if (most > 0) {
      context.fillStyle = theme.muted;
      context.globalAlpha = 0.55;
      const step = width / this.curve.length;
      this.curve.forEach((value, i) => {
        const high = (value / most) * (height - 4);
        context.fillRect(gutter + i * step, height - high, step + 0.3, high);
      });
      context.globalAlpha = 1;
    }
    const left = this.x(this.view.from);
    const right = Math.max(this.x(this.view.to), left + 2);
    context.fillStyle = theme.panel;
    context.globalAlpha = 0.7;
    context.fillRect(gutter, 0, left - gutter, height);
    context.fillRect(right, 0, gutter + width - right, height);
    context.globalAlpha = 1;
    context.strokeStyle = theme.accent;
    context.lineWidth = 1.5;
    context.strokeRect(left + 0.75, 0.75, right - left - 1.5, height - 1.5);
  }

  private listen(): void {
    const { canvas, view } = this;
    let grip: "move" | "from" | "to" | "new" | undefined;
    let last = 0;
    const place = (event: PointerEvent) => event.clientX - canvas.getBoundingClientRect().left;
    const kind = (x: number) => {
      const left = this.x(view.from);
      const right = this.x(view.to);
      if (Math.abs(x - left) < EDGE && right - left > EDGE) return "from";
      if (Math.abs(x - right) < EDGE && right - left > EDGE) return "to";
      return x > left && x < right && !view.isAll() ? "move" : "new";
    };
    canvas.addEventListener("pointerdown", (event) => {
      last = place(event);
      grip = kind(last);
      canvas.setPointerCapture(event.pointerId);
    });
    canvas.addEventListener("pointermove", (event) => {
      const x = place(event);
      canvas.style.cursor = { from: "ew-resize", to: "ew-resize", move: "grab", new: "crosshair" }[kind(x)];
      if (!grip) return;
      if (grip === "move") {
        const shift = this.moment(x) - this.moment(last);
        view.show(view.from + shift, view.to + shift);
        last = x;
      } else if (grip === "from") view.show(Math.min(this.moment(x), view.to), view.to);
      else if (grip === "to") view.show(view.from, Math.max(this.moment(x), view.from));
      else if (Math.abs(x - last) > 3) view.show(this.moment(Math.min(x, last)), this.moment(Math.max(x, last)));
      this.onChange();
    });
    canvas.addEventListener("pointerup", (event) => {
      const x = place(event);
      if (grip === "new" && Math.abs(x - last) <= 3 && !view.isAll()) {
        const shift = this.moment(x) - (view.from + view.to) / 2;
        view.show(view.from + shift, view.to + shift);
        this.onChange();
      }
      grip = undefined;
    });
    canvas.addEventListener("pointercancel", () => (grip = undefined));
    canvas.addEventListener("dblclick", () => {
      view.showAll();
      this.onChange();
    });
  }
}
