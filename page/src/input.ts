/** The pointer and the wheel on the lanes. */

import type { Hit, Timeline } from "./timeline.ts";

export interface Actions {
  /** The view has changed. */
  changed: () => void;
  /** The pointer is at a place, or nowhere. */
  point: (hit: Hit | undefined, event: PointerEvent | undefined) => void;
  choose: (row: number) => void;
  zoomTo: (row: number) => void;
  /** A span was chosen. */
  span: (from: number, to: number) => void;
}

/** A pointer that moves less is a click. */
const STILL = 4;

export function listen(timeline: Timeline, scroller: HTMLElement, actions: Actions, gutter: () => number): void {
  const { canvas, view } = timeline;
  const pointers = new Map<number, { x: number; y: number }>();
  let moved = 0;
  let isRange = false;
  const local = (event: MouseEvent) => {
    const box = canvas.getBoundingClientRect();
    return { x: event.clientX - box.left, y: event.clientY - box.top };
  };

  canvas.addEventListener("pointerdown", (event) => {
    if (event.button !== 0) return;
    const at = local(event);
    pointers.set(event.pointerId, at);
    canvas.setPointerCapture(event.pointerId);
    moved = 0;
    isRange = event.shiftKey && at.x > gutter();
    if (isRange) timeline.range = { from: view.moment(at.x - gutter()), to: view.moment(at.x - gutter()) };
  });

  canvas.addEventListener("pointermove", (event) => {
    const at = local(event);
    const last = pointers.get(event.pointerId);
    if (!last) {
      actions.point(timeline.hit(at.x, at.y), event);
      return;
    }
    const shift = { x: Math.round(at.x - last.x), y: Math.round(at.y - last.y) };
    moved += Math.abs(shift.x) + Math.abs(shift.y);
    if (moved < STILL) return;
    canvas.classList.add("dragging");
    actions.point(undefined, event);
    if (timeline.range && isRange) {
      timeline.range.to = view.moment(at.x - gutter());
    } else if (pointers.size === 2) {
      const [a, b] = [...pointers.values()];
      const before = Math.hypot(a.x - b.x, a.y - b.y);
      pointers.set(event.pointerId, at);
      const [c, d] = [...pointers.values()];
      const after = Math.hypot(c.x - d.x, c.y - d.y);
      if (before > 0 && after > 0) view.zoom(before / after, (c.x + d.x) / 2 - gutter());
    } else {
      view.pan(-shift.x);
      if (event.pointerType !== "touch") scroller.scrollTop -= shift.y;
    }
    pointers.set(event.pointerId, { x: last.x + shift.x, y: last.y + shift.y });
    actions.changed();
  });

  const release = (event: PointerEvent) => {
    if (!pointers.delete(event.pointerId)) return;
    canvas.classList.remove("dragging");
    const { range } = timeline;
    timeline.range = undefined;
    if (range && isRange && moved >= STILL) {
      actions.span(Math.min(range.from, range.to), Math.max(range.from, range.to));
    } else if (moved < STILL && event.type === "pointerup") {
      const at = local(event);
      actions.choose(timeline.hit(at.x, at.y)?.row ?? -1);
    }
    actions.changed();
  };
  canvas.addEventListener("pointerup", release);
  canvas.addEventListener("pointercancel", release);
  canvas.addEventListener("pointerleave", (event) => {
    if (pointers.size === 0) actions.point(undefined, event);
  });

  canvas.addEventListener("dblclick", (event) => {
    const at = local(event);
    const row = timeline.hit(at.x, at.y)?.row;
    if (row !== undefined) actions.zoomTo(row);
    else if (at.x > gutter()) view.zoom(0.5, at.x - gutter());
    actions.changed();
  });

  canvas.addEventListener(
    "wheel",
    (event) => {
      const at = local(event);
      // Over the labels, and with Shift, the wheel scrolls the lanes.
      if (at.x < gutter()) return;
      event.preventDefault();
      const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE ? 30 : 1;
      const [x, y] = [event.deltaX * lines, event.deltaY * lines];
      if (event.shiftKey) scroller.scrollTop += y || x;
      else if (Math.abs(x) > Math.abs(y)) view.pan(Math.round(x));
      else view.zoom(1.0018 ** Math.max(-300, Math.min(300, event.ctrlKey ? 4 * y : y)), at.x - gutter());
      actions.changed();
    },
    { passive: false },
  );
}
