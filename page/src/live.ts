/** Recordings that grow while they are shown; `docs/recording.md` describes the updates. */

import { parse, read, type Recording, type Tasks, UnreadableError, type Waits } from "./recording.ts";

/** An update does not follow the document before it: the whole recording is needed. */
export class OutOfStepError extends UnreadableError {}

type Json = Record<string, unknown>;

/** A recording that updates extend. */
export class GrowingRecording {
  /** The rows that change no more. */
  private settled: Recording | undefined;

  /** Takes a whole document or an update, and returns the recording as it is now. */
  apply(document: unknown): Recording {
    const json = (typeof document === "object" && document !== null ? document : {}) as Json;
    const before = json.update as Json | undefined;
    if (before === undefined) {
      this.settled = read(document);
    } else {
      const { settled } = this;
      if (
        !settled ||
        before.tasks !== settled.tasks.count ||
        before.waits !== settled.waits.count ||
        before.strings !== settled.strings.length
      ) {
        throw new OutOfStepError("An update does not follow the document before it.");
      }
      const strings = settled.strings.concat(json.strings === undefined ? [] : (json.strings as string[]));
      const added = read({ ...json, strings });
      this.settled = {
        ...added,
        tasks: joinTasks(settled.tasks, added.tasks),
        waits: joinWaits(settled.waits, added.waits),
      };
    }
    const { settled } = this;
    const open = json.open as Json | undefined;
    if (open === undefined) return settled;
    const tables = { tasks: open.tasks ?? { count: 0 }, waits: open.waits ?? { count: 0 } };
    const rows = read({ ...json, ...tables, strings: settled.strings });
    return {
      ...settled,
      tasks: joinTasks(settled.tasks, rows.tasks),
      waits: joinWaits(settled.waits, rows.waits),
    };
  }
}

type Column = Float64Array | Float32Array | Uint32Array | Uint8Array;

function joinTasks(first: Tasks, second: Tasks): Tasks {
  return join(first as unknown as Columns, second as unknown as Columns) as unknown as Tasks;
}

function joinWaits(first: Waits, second: Waits): Waits {
  return join(first as unknown as Columns, second as unknown as Columns) as unknown as Waits;
}

type Columns = Record<string, Column | number> & { count: number };

function join(first: Columns, second: Columns): Columns {
  if (second.count === 0) return first;
  const joined: Columns = { count: first.count + second.count };
  for (const [name, column] of Object.entries(first)) {
    if (typeof column === "number") continue;
    const values = new (column.constructor as new (length: number) => Column)(joined.count);
    values.set(column);
    values.set(second[name] as Column, first.count);
    joined[name] = values;
  }
  return joined;
}

export type LiveState = "connecting" | "live" | "lost" | "ended";

/** Receives the documents of a running program by server-sent events. */
export class Connection {
  private source: EventSource | undefined;
  private growing = new GrowingRecording();
  private restarts = 0;

  constructor(
    private readonly address: string,
    private readonly onRecording: (recording: Recording) => void,
    private readonly onState: (state: LiveState) => void,
    private readonly onError: (error: unknown) => void,
  ) {
    this.open();
  }

  private open(): void {
    this.growing = new GrowingRecording();
    this.onState("connecting");
    const source = new EventSource(this.address);
    this.source = source;
    source.addEventListener("open", () => {
      // The server begins each connection with a whole document.
      this.growing = new GrowingRecording();
      this.onState("live");
    });
    source.addEventListener("message", (event: MessageEvent<string>) => this.take(event.data));
    source.addEventListener("end", () => this.end());
    source.addEventListener("error", () => this.onState("lost"));
  }

  private take(text: string): void {
    try {
      const recording = this.growing.apply(parse(text));
      this.restarts = 0;
      this.onRecording(recording);
      if (recording.finished) this.end();
    } catch (error) {
      this.source?.close();
      // Asks for the whole recording, but not for ever.
      if (error instanceof OutOfStepError && this.restarts++ < 3) {
        this.open();
        return;
      }
      this.onState("lost");
      this.onError(error);
    }
  }

  private end(): void {
    this.source?.close();
    this.onState("ended");
  }
}
