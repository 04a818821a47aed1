/** Begins the page: reads the recording in it, or connects to the program that makes one. */

import { App, byId } from "./app.ts";
import { Connection } from "./live.ts";
import { parse, read, type Recording, UnreadableError } from "./recording.ts";

let app: App | undefined;

function show(recording: Recording): void {
  byId("message").hidden = true;
  if (app) app.update(recording);
  else {
    document.documentElement.dataset.state = "open";
    app = new App(recording);
  }
}

function complain(error: unknown): void {
  const message = byId("message");
  const isKnown = error instanceof UnreadableError;
  message.textContent = isKnown ? error.message : `The page cannot show this recording: ${String(error)}`;
  message.className = "bad";
  message.hidden = false;
  document.documentElement.dataset.state = "failed";
  if (!isKnown) console.error(error);
}

function live(address: string): void {
  let latest: Recording | undefined;
  let isPlanned = false;
  let cost = 0;
  const draw = () => {
    isPlanned = false;
    if (!latest) return;
    const began = performance.now();
    try {
      show(latest);
    } catch (error) {
      complain(error);
    }
    latest = undefined;
    cost = performance.now() - began;
  };
  const state = { text: "connecting" as Parameters<App["showLive"]>[0] };
  new Connection(
    address,
    (recording) => {
      latest = recording;
      // A large recording takes a while to draw: the page keeps three quarters of the time for its reader.
      if (!isPlanned) setTimeout(() => { draw(); app?.showLive(state.text); }, 3 * cost);
      isPlanned = true;
    },
    (next) => {
      state.text = next;
      if (app) app.showLive(next);
      else byId("message").textContent = next === "lost" ? "The program cannot be reached. Trying again…" : "Waiting for the program…";
    },
    complain,
  );
}

function begin(): void {
  const text = byId("recording").textContent ?? "";
  const address = document.querySelector<HTMLMetaElement>('meta[name="recording-events"]')?.content ?? "";
  try {
    if (text.trim() !== "") show(read(parse(text)));
    else if (address === "") throw new UnreadableError("There is no recording in this page.");
    // The text is no more needed, and can be large.
    byId("recording").textContent = "";
  } catch (error) {
    complain(error);
    return;
  }
  if (address !== "") live(address);
}

// The recording is the last part of the page. The page shows that it reads before it reads.
document.addEventListener("DOMContentLoaded", () => requestAnimationFrame(() => setTimeout(begin)));
