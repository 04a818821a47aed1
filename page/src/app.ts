/** The page: holds its parts together. */

import { render } from "./card.ts";
import { Charts } from "./charts.ts";
import { type Figures, figures } from "./functions.ts";
import { counted, duration, group } from "./format.ts";
import { Index } from "./index.ts";
import { listen } from "./input.ts";
import { type KeyActions, listenToKeys } from "./keys.ts";
import type { LiveState } from "./live.ts";
import { Overview } from "./overview.ts";
import { isFailure, type Recording } from "./recording.ts";
import { type Matches, search } from "./search.ts";
import { listenToSplitter } from "./splitter.ts";
import { showFindings } from "./findings.ts";
import { type Finding, summarize } from "./summary.ts";
import { Table } from "./table.ts";
import { Colours, readTheme, type Theme } from "./theme.ts";
import { type Hit, Timeline } from "./timeline.ts";
import { View } from "./view.ts";

/** Returns the element with an id, which the page has. */
export function byId<E extends HTMLElement>(id: string): E {
  return document.getElementById(id) as E;
}

export class App {
  private index: Index;
  private readonly view = new View();
  private theme: Theme = readTheme();
  private readonly timeline: Timeline;
  private readonly charts: Charts;
  private readonly overview: Overview;
  private readonly table: Table;
  private readonly colours = new Colours();
  private colourOf: Uint8Array = new Uint8Array(1);
  private all: Figures[] = [];
  private matches: Matches | undefined;
  private frame = 0;
  private scope = 0;
  private isolated = -1;

  constructor(recording: Recording) {
    this.index = new Index(recording);
    const scroller = byId("lanes");
    this.timeline = new Timeline(scroller, this.index, this.view);
    this.charts = new Charts(
      byId("charts"),
      this.view,
      (from, to) => this.show(from, to),
      (moment) => this.point(moment),
    );
    this.overview = new Overview(byId<HTMLCanvasElement>("overview"), this.view, () => this.changed());
    this.table = new Table(byId<HTMLTableElement>("functions"), byId("functions-note"), byId<HTMLInputElement>("filter"), (name) =>
      this.isolate(name === this.isolated ? -1 : name),
    );
    this.view.setBounds(this.index.from, this.index.to);
    listen(
      this.timeline,
      scroller,
      {
        changed: () => this.changed(),
        point: (hit, event) => this.hover(hit, event),
        choose: (row) => this.choose(row),
        zoomTo: (row) => this.zoomTo(row),
        span: (from, to) => this.show(from, to),
      },
      () => this.gutter,
    );
    scroller.addEventListener("scroll", () => this.redraw());
    this.listenToControls();
    new ResizeObserver(() => this.resize()).observe(scroller);
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.retheme());
    this.fill();
    this.resize();
    this.view.showAll();
    // Runs from before the beginning are there to see, but are not the picture to begin with.
    if (this.index.from < 0 && recording.duration > 0) this.view.show(-recording.duration * 0.01, this.index.to);
    this.changed();
  }

  /** Shows a newer state of the same recording. */
  update(recording: Recording): void {
    const { tasks } = this.index.recording;
    const { selected } = this.timeline;
    const chosen = selected < 0 ? undefined : { task: tasks.task[selected], start: tasks.start[selected], attempt: tasks.attempt[selected] };
    const wasAll = this.view.isAll();
    const hadEnd = this.view.hasEnd();
    this.index = new Index(recording);
    this.timeline.setIndex(this.index);
    this.view.setBounds(this.index.from, this.index.to);
    if (hadEnd) this.view.follow(wasAll);
    this.timeline.hovered = -1;
    byId("card").hidden = true;
    const rows = chosen ? this.index.rowsOf(chosen.task) : [];
    const isSame = (row: number) =>
      recording.tasks.attempt[row] === chosen?.attempt && (Number.isNaN(chosen.start) || recording.tasks.start[row] === chosen.start);
    this.timeline.selected = Array.from(rows).find(isSame) ?? -1;
    this.fill();
    this.overview.resize(this.index, this.gutter);
    this.changed();
  }

  showLive(state: LiveState): void {
    const badge = byId("live");
    badge.hidden = false;
    badge.className = state;
    badge.textContent = { connecting: "Connecting…", live: "Live", lost: "Connection lost; trying again", ended: "Ended" }[state];
  }

  /** Writes all that does not depend on the view. */
  private fill(): void {
    const { recording } = this.index;
    this.all = figures(this.index);
    this.colourOf = this.colours.assign(this.all, recording.strings);
    this.timeline.colours = this.colourOf;
    const query = byId<HTMLInputElement>("search").value;
    if (this.isolated >= 0) this.isolated = recording.strings.indexOf(query.slice(1));
    this.search(query);
    this.fillHead();
    showFindings(byId("findings"), summarize(this.index, this.all), (finding) => this.goTo(finding));
    this.fillTable();
    this.fillTask();
    const { count } = recording.tasks;
    this.timeline.canvas.setAttribute(
      "aria-label",
      `Timeline: ${counted(count, "run")} of tasks in ${counted(this.index.lanes.length, "lane")}. Arrow keys move, plus and minus zoom; press ? for all keys.`,
    );
    document.documentElement.dataset.tasks = String(count);
  }

  private fillHead(): void {
    const { recording, lanes } = this.index;
    const { program, started, pid, tasks, workers } = recording;
    const name = program || "Recording";
    document.title = `${name} – timeline`;
    byId("program").textContent = name;
    const date = new Date(started * 1000);
    const when = Number.isNaN(date.getTime()) ? "" : date.toLocaleString(undefined, { dateStyle: "medium", timeStyle: "medium" });
    byId("when").textContent = [when, pid > 0 ? `process ${pid}` : ""].filter(Boolean).join(" · ");
    let failed = 0;
    let calls = 0;
    for (let row = 0; row < tasks.count; row++) {
      calls += tasks.items[row];
      if (isFailure(tasks.outcome[row])) failed++;
    }
    const ran = lanes.reduce((sum, lane) => sum + lane.busy[lane.rows.length], 0);
    const facts: [string, string, string?][] = [
      [duration(recording.duration), "recorded"],
      [group(calls), calls === 1 ? "task" : "tasks"],
      [group(workers.length), workers.length === 1 ? "worker" : "workers"],
      [duration(ran), "of work"],
      [group(failed), "failed", failed > 0 ? "bad" : ""],
    ];
    byId("facts").replaceChildren(
      ...facts.map(([value, label, kind]) => {
        const fact = document.createElement("span");
        if (kind) fact.className = kind;
        const strong = document.createElement("strong");
        strong.textContent = value;
        fact.append(strong, ` ${label}`);
        return fact;
      }),
    );
  }

  private fillTable(): void {
    const isInView = byId<HTMLInputElement>("in-view").checked && !this.view.isAll();
    const found = isInView ? figures(this.index, this.view.from, this.view.to) : this.all;
    this.table.set(found, this.index.recording.strings, this.colourOf, this.isolated);
  }

  private fillTask(): void {
    const panel = byId("task");
    const row = this.timeline.selected;
    panel.hidden = row < 0;
    if (row < 0) return;
    byId("task-body").replaceChildren(
      render(this.index, row, this.colourOf, {
        isBrief: false,
        onTask: (task) => {
          const [first] = this.index.rowsOf(task);
          if (first !== undefined) this.reveal(first);
        },
      }),
    );
  }

  private get gutter(): number {
    return Number.parseInt(getComputedStyle(document.documentElement).getPropertyValue("--gutter"), 10) || 120;
  }

  private resize(): void {
    this.timeline.resize(this.gutter);
    this.charts.rebuild(this.theme, this.gutter);
    this.overview.resize(this.index, this.gutter);
    this.changed();
  }

  private retheme(): void {
    this.theme = readTheme();
    this.resize();
  }

  /** The view has changed. */
  private changed(): void {
    this.redraw();
    if (!byId<HTMLInputElement>("in-view").checked) return;
    clearTimeout(this.scope);
    this.scope = window.setTimeout(() => this.fillTable(), 200);
  }

  private redraw(): void {
    if (this.frame !== 0) return;
    this.frame = requestAnimationFrame(() => {
      this.frame = 0;
      this.timeline.draw(this.theme);
      this.charts.draw(this.index);
      this.charts.point(this.index, this.timeline.pointed);
      this.overview.draw(this.theme);
      const { dataset } = document.documentElement;
      dataset.from = String(this.view.from);
      dataset.to = String(this.view.to);
    });
  }

  private point(moment: number): void {
    if (Object.is(this.timeline.pointed, moment)) return;
    this.timeline.pointed = moment;
    this.redraw();
  }

  private show(from: number, to: number): void {
    this.view.show(from, to);
    this.changed();
  }

  private hover(hit: Hit | undefined, event: PointerEvent | undefined): void {
    const card = byId("card");
    this.timeline.hovered = hit?.row ?? -1;
    this.timeline.canvas.style.cursor = hit?.row === undefined ? "" : "pointer";
    this.timeline.pointed = hit ? hit.moment : NaN;
    this.redraw();
    if (!hit || !event || event.pointerType === "touch") {
      card.hidden = true;
      return;
    }
    if (hit.row === undefined) {
      if (hit.lane || !hit.group) {
        card.hidden = true;
        return;
      }
      const waiting = hit.group.queue.at(hit.moment);
      card.replaceChildren(`${counted(waiting, "task")} in the queue at ${duration(hit.moment)}`);
    } else {
      card.replaceChildren(render(this.index, hit.row, this.colourOf, { isBrief: true, crowd: hit.crowd }));
    }
    card.hidden = false;
    const { width, height } = card.getBoundingClientRect();
    const left = event.clientX + 14 + width > innerWidth ? event.clientX - width - 14 : event.clientX + 14;
    const top = event.clientY + 14 + height > innerHeight ? event.clientY - height - 14 : event.clientY + 14;
    card.style.left = `${Math.max(4, left)}px`;
    card.style.top = `${Math.max(4, top)}px`;
  }

  /** Makes a row the chosen one, or none with -1. */
  private choose(row: number): void {
    this.timeline.selected = row;
    this.fillTask();
    this.redraw();
    if (row < 0) return;
    const { strings, tasks } = this.index.recording;
    byId("said").textContent = `Task ${tasks.task[row]}, ${strings[tasks.name[row]]}, ${byId("task-body").querySelector(".outcome")?.textContent ?? ""}`;
  }

  /** Chooses a row and brings it into the picture. */
  private reveal(row: number): void {
    this.choose(row);
    const { tasks } = this.index.recording;
    const start = Number.isNaN(tasks.start[row]) ? tasks.end[row] : tasks.start[row];
    const stop = Number.isNaN(tasks.start[row]) ? tasks.end[row] : this.index.stop[row];
    if (Number.isNaN(start)) return;
    const { view } = this;
    const length = stop - start;
    if (length / view.scale < 4) {
      const span = Math.max(Math.min(view.span, length * 40), 200);
      view.show((start + stop) / 2 - span / 2, (start + stop) / 2 + span / 2);
    } else if (stop > view.to || start < view.from) {
      const span = Math.max(view.span, length * 1.2);
      view.show((start + stop) / 2 - span / 2, (start + stop) / 2 + span / 2);
    }
    const lane = this.index.laneOf(row);
    if (lane) this.timeline.reveal(lane);
    this.changed();
  }

  private zoomTo(row: number): void {
    const { tasks } = this.index.recording;
    this.choose(row);
    if (!Number.isNaN(tasks.start[row])) this.view.showAround(tasks.start[row], this.index.stop[row]);
    this.reveal(row);
  }

  private goTo(finding: Finding): void {
    if (finding.row !== undefined) {
      this.view.showAll();
      this.reveal(finding.row);
    } else if (finding.span) {
      if (finding.span.to > finding.span.from) this.view.showAround(finding.span.from, finding.span.to);
      this.changed();
    }
  }

  private search(query: string): void {
    this.matches = search(this.index.recording, query);
    this.timeline.setMatches(this.matches);
    const { matches } = this;
    byId("found").textContent = !matches ? "" : matches.count === 0 ? "none" : group(matches.count);
    document.documentElement.dataset.found = matches ? String(matches.count) : "";
    this.redraw();
  }

  /** Shows one function alone, or all with -1. */
  private isolate(name: number): void {
    this.isolated = name;
    this.table.isolate(name);
    const field = byId<HTMLInputElement>("search");
    field.value = name < 0 ? "" : `=${this.index.recording.strings[name]}`;
    this.search(field.value);
  }

  /** Goes to the next row in time that a condition holds for, round the ends. */
  private jump(isWanted: (row: number) => boolean, direction: 1 | -1): void {
    const rows = this.index.byTime();
    const { selected } = this.timeline;
    const { tasks } = this.index.recording;
    const current = selected >= 0 ? rows.indexOf(selected) : rows.findIndex((row) => tasks.start[row] >= this.view.from) - 1;
    for (let step = 1; step <= rows.length; step++) {
      const place = (((current + direction * step) % rows.length) + rows.length) % rows.length;
      if (isWanted(rows[place])) {
        this.reveal(rows[place]);
        return;
      }
    }
  }

  private jumpToMatch(direction: 1 | -1): void {
    const { matches } = this;
    if (matches && matches.count > 0) this.jump((row) => matches.isMatch[row] === 1, direction);
  }

  /** Goes to the next or last run of the same lane. */
  private step(direction: 1 | -1): void {
    const row = this.timeline.selected;
    const lane = row >= 0 ? this.index.laneOf(row) : undefined;
    if (!lane) {
      this.jump((row) => !Number.isNaN(this.index.recording.tasks.start[row]), direction);
      return;
    }
    const next = lane.rows[this.index.placeIn(lane, row) + direction];
    if (next !== undefined) this.reveal(next);
  }

  /** Goes to the run at the same time in the lane above or below. */
  private stepLane(direction: 1 | -1): void {
    const { lanes } = this.index;
    const row = this.timeline.selected;
    const lane = row >= 0 ? this.index.laneOf(row) : undefined;
    const middle = row >= 0 ? (Math.max(this.view.from, this.index.recording.tasks.start[row]) + Math.min(this.view.to, this.index.stop[row])) / 2 : NaN;
    let place = lane ? lanes.indexOf(lane) : direction > 0 ? -1 : lanes.length;
    for (place += direction; place >= 0 && place < lanes.length; place += direction) {
      const next = lanes[place];
      if (next.rows.length === 0) continue;
      const at = Number.isNaN(middle) ? (this.view.from + this.view.to) / 2 : middle;
      const after = next.start.findIndex((start) => start > at);
      this.reveal(next.rows[Math.max(0, (after < 0 ? next.rows.length : after) - 1)]);
      return;
    }
  }

  private listenToControls(): void {
    const field = byId<HTMLInputElement>("search");
    field.addEventListener("input", () => {
      if (this.isolated >= 0) {
        this.isolated = -1;
        this.table.isolate(-1);
      }
      this.search(field.value);
    });
    field.addEventListener("keydown", (event) => {
      if (event.key === "Enter") this.jumpToMatch(event.shiftKey ? -1 : 1);
      if (event.key === "Escape") {
        this.isolate(-1);
        this.timeline.canvas.focus();
      }
    });
    byId("in-view").addEventListener("change", () => this.fillTable());
    byId("task-close").addEventListener("click", () => this.choose(-1));
    byId("task-zoom").addEventListener("click", () => this.zoomTo(this.timeline.selected));
    byId("task-next").addEventListener("click", () => this.step(1));
    byId("task-previous").addEventListener("click", () => this.step(-1));
    byId("zoom-in").addEventListener("click", () => this.zoom(0.5));
    byId("zoom-out").addEventListener("click", () => this.zoom(2));
    byId("zoom-all").addEventListener("click", () => this.showAll());
    const help = byId<HTMLDialogElement>("help");
    byId("help-open").addEventListener("click", () => help.showModal());
    help.addEventListener("click", (event) => {
      if (event.target === help) help.close();
    });
    byId("theme").addEventListener("click", () => this.switchTheme());
    listenToSplitter(byId("splitter"), () => this.resize());
    const actions: KeyActions = {
      pan: (share) => {
        this.view.pan(Math.round(share * this.view.width));
        this.changed();
      },
      zoom: (factor) => this.zoom(factor),
      all: () => this.showAll(),
      step: (direction) => this.step(direction),
      stepLane: (direction) => this.stepLane(direction),
      nextFailure: (direction) => this.jump((row) => isFailure(this.index.recording.tasks.outcome[row]), direction),
      nextMatch: (direction) => this.jumpToMatch(direction),
      zoomToChosen: () => {
        if (this.timeline.selected >= 0) this.zoomTo(this.timeline.selected);
      },
      search: () => field.select(),
      help: () => help.showModal(),
      theme: () => this.switchTheme(),
      clear: () => (this.timeline.selected >= 0 ? this.choose(-1) : this.isolate(-1)),
    };
    listenToKeys(actions);
  }

  private zoom(factor: number): void {
    const { pointed } = this.timeline;
    this.view.zoom(factor, Number.isNaN(pointed) ? undefined : this.view.x(pointed));
    this.changed();
  }

  private showAll(): void {
    this.view.showAll();
    this.changed();
  }

  private switchTheme(): void {
    const root = document.documentElement;
    const isDark = (root.dataset.theme ?? (matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light")) === "dark";
    root.dataset.theme = isDark ? "light" : "dark";
    this.retheme();
  }
}

