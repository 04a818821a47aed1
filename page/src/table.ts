/** The table of functions. */

import { bytes, duration, group, short } from "./format.ts";
import type { Figures } from "./functions.ts";

/** Functions that are shown at once; the filter finds the others. */
const MOST = 300;

type Key = "name" | "count" | "total" | "mean" | "p50" | "p95" | "p99" | "errors" | "waiting" | "bytes";

interface Column {
  key: Key;
  title: string;
  hint: string;
  show: (value: number) => string;
}

const COLUMNS: Column[] = [
  { key: "name", title: "Function", hint: "The qualified name of the function", show: String },
  { key: "count", title: "Calls", hint: "Calls that ran or run", show: (value) => (value < 1e6 ? group(value) : short(value)) },
  { key: "total", title: "Total", hint: "Time of all calls", show: duration },
  { key: "mean", title: "Mean", hint: "Mean time of a call", show: duration },
  { key: "p50", title: "p50", hint: "Half of the calls took at most this long", show: duration },
  { key: "p95", title: "p95", hint: "95 % of the calls took at most this long", show: duration },
  { key: "p99", title: "p99", hint: "99 % of the calls took at most this long", show: duration },
  { key: "errors", title: "Errors", hint: "Calls that failed, and calls lost with their workers", show: (value) => (value === 0 ? "–" : group(value)) },
  { key: "waiting", title: "Waiting", hint: "Mean time from submit to start", show: duration },
  { key: "bytes", title: "Bytes", hint: "Bytes of the pickled calls and results", show: (value) => (value === 0 ? "–" : bytes(value)) },
];

export class Table {
  private figures: Figures[] = [];
  private strings: string[] = [];
  private colours: Uint8Array = new Uint8Array(1);
  private key: Key = "total";
  private isAscending = false;
  private filter = "";
  private isolated = -1;

  constructor(
    private readonly table: HTMLTableElement,
    private readonly note: HTMLElement,
    filter: HTMLInputElement,
    private readonly onChoose: (name: number) => void,
  ) {
    filter.addEventListener("input", () => {
      this.filter = filter.value.trim().toLowerCase();
      this.draw();
    });
  }

  set(figures: Figures[], strings: string[], colours: Uint8Array, isolated: number): void {
    this.isolated = isolated;
    this.figures = figures;
    this.strings = strings;
    this.colours = colours;
    this.draw();
  }

  /** Marks the function that is shown alone, or none with -1. */
  isolate(name: number): void {
    this.isolated = name;
    this.draw();
  }

  private nameOf(figures: Figures): string {
    return this.strings[figures.name] || "(no name)";
  }

  private draw(): void {
    const hasBytes = this.figures.some((it) => it.bytes > 0);
    const columns = COLUMNS.filter(({ key }) => key !== "bytes" || hasBytes);
    const focused = (document.activeElement as HTMLElement | null)?.dataset?.key;
    this.table.replaceChildren(this.head(columns), this.body(columns));
    if (focused) this.table.querySelector<HTMLElement>(`[data-key="${CSS.escape(focused)}"]`)?.focus();
  }

  private head(columns: Column[]): HTMLElement {
    const head = document.createElement("thead");
    const row = head.insertRow();
    for (const { key, title, hint } of columns) {
      const cell = document.createElement("th");
      cell.scope = "col";
      const isSorted = key === this.key;
      cell.setAttribute("aria-sort", isSorted ? (this.isAscending ? "ascending" : "descending") : "none");
      const button = document.createElement("button");
      button.type = "button";
      button.title = hint;
      button.dataset.key = `sort ${key}`;
      button.textContent = title;
      button.addEventListener("click", () => {
        this.isAscending = isSorted ? !this.isAscending : key === "name";
        this.key = key;
        this.draw();
      });
      cell.append(button);
      row.append(cell);
    }
    return head;
  }

  private body(columns: Column[]): HTMLElement {
    const body = document.createElement("tbody");
    const found = this.figures
      .filter((it) => this.filter === "" || this.nameOf(it).toLowerCase().includes(this.filter))
      .sort((a, b) => this.compare(a, b));
    for (const figures of found.slice(0, MOST)) {
      const row = body.insertRow();
      row.classList.toggle("isolated", figures.name === this.isolated);
      for (const { key, show } of columns) {
        if (key === "name") {
          row.append(this.nameCell(figures));
          continue;
        }
        const cell = row.insertCell();
        const value = figures[key];
        cell.textContent = show(value);
        if (Number.isNaN(value) || cell.textContent === "–") cell.className = "none";
        else if (key === "errors") cell.className = "failed";
      }
    }
    const hidden = found.length - MOST;
    this.note.textContent =
      this.figures.length === 0
        ? "No tasks."
        : found.length === 0
          ? "No function has this text in its name."
          : hidden > 0
            ? `${group(hidden)} more functions: filter by name to see them.`
            : "A click on a function shows it alone; a click on a task shows its details.";
    return body;
  }

  private nameCell(figures: Figures): HTMLElement {
    const cell = document.createElement("th");
    cell.scope = "row";
    const button = document.createElement("button");
    button.type = "button";
    button.dataset.key = `name ${figures.name}`;
    button.title = `${this.nameOf(figures)}: show this function alone`;
    button.setAttribute("aria-pressed", String(figures.name === this.isolated));
    const swatch = document.createElement("i");
    swatch.className = `swatch f${this.colours[figures.name]}`;
    const name = document.createElement("span");
    name.textContent = this.nameOf(figures);
    button.append(swatch, name);
    button.addEventListener("click", () => this.onChoose(figures.name));
    cell.append(button);
    return cell;
  }

  private compare(a: Figures, b: Figures): number {
    const sign = this.isAscending ? 1 : -1;
    if (this.key === "name") return sign * this.nameOf(a).localeCompare(this.nameOf(b));
    const [x, y] = [a[this.key], b[this.key]];
    // Functions without a value come last in either direction.
    if (Number.isNaN(x) || Number.isNaN(y)) return Number(Number.isNaN(x)) - Number(Number.isNaN(y));
    return sign * (x - y);
  }
}

