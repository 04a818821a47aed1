/** The span of time that is visible. */

/** The shortest visible span, in nanoseconds. */
const SHORTEST = 20;

export class View {
  from = 0;
  to = 1;
  /** The span that there is to see. */
  private first = 0;
  private last = 1;
  /** Width in pixels. */
  width = 1;

  /** Sets the span that there is, and keeps the visible one in it. */
  setBounds(first: number, last: number): void {
    this.first = first;
    this.last = Math.max(last, first + SHORTEST);
    this.show(this.from, this.to);
  }

  get span(): number {
    return this.to - this.from;
  }

  /** Nanoseconds of a pixel. */
  get scale(): number {
    return this.span / this.width;
  }

  x(moment: number): number {
    return (moment - this.from) / this.scale;
  }

  moment(x: number): number {
    return this.from + x * this.scale;
  }

  /** Shows a span, as far as it is there. */
  show(from: number, to: number): void {
    const bounds = this.bounds();
    const span = Math.min(Math.max(to - from, SHORTEST), bounds.to - bounds.from);
    const start = Math.min(Math.max(from, bounds.from), bounds.to - span);
    this.from = start;
    this.to = start + span;
  }

  /** Shows a span with some room around it. */
  showAround(from: number, to: number): void {
    const room = Math.max((to - from) * 0.3, SHORTEST);
    this.show(from - room, to + room);
  }

  pan(pixels: number): void {
    const shift = pixels * this.scale;
    this.show(this.from + shift, this.to + shift);
  }

  /** Zooms about a pixel: by less than 1 into the picture, by more than 1 out of it. */
  zoom(factor: number, x = this.width / 2): void {
    const centre = this.moment(x);
    const bounds = this.bounds();
    const span = Math.min(Math.max(this.span * factor, SHORTEST), bounds.to - bounds.from);
    const from = centre - (span * x) / this.width;
    this.show(from, from + span);
  }

  showAll(): void {
    this.show(this.first - this.margin(), this.last + this.margin());
  }

  isAll(): boolean {
    const bounds = this.bounds();
    return this.span >= (bounds.to - bounds.from) * 0.9999;
  }

  /** Whether the end of the recording is visible. */
  hasEnd(): boolean {
    return this.to >= this.last;
  }

  /** Goes with the end of a recording that grows, and keeps the visible span. */
  follow(wasAll: boolean): void {
    if (wasAll) this.showAll();
    else this.show(this.last + this.margin() - this.span, this.last + this.margin());
  }

  private margin(): number {
    return (this.last - this.first) * 0.01;
  }

  private bounds(): { from: number; to: number } {
    return { from: this.first - this.margin(), to: this.last + this.margin() };
  }
}
