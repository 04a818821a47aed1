/** The keys of the page. */

export interface KeyActions {
  /** Moves by a share of the visible span. */
  pan: (share: number) => void;
  zoom: (factor: number) => void;
  all: () => void;
  step: (direction: 1 | -1) => void;
  stepLane: (direction: 1 | -1) => void;
  nextFailure: (direction: 1 | -1) => void;
  nextMatch: (direction: 1 | -1) => void;
  zoomToChosen: () => void;
  search: () => void;
  help: () => void;
  theme: () => void;
  clear: () => void;
}

export function listenToKeys(actions: KeyActions): void {
  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    const target = event.target instanceof Element ? event.target : document.body;
    if (target.closest("input:not([type=checkbox]), select, textarea, dialog[open], [role=separator]")) return;
    // A focused button has its own keys.
    if (target.closest("button, input") && (event.key === "Enter" || event.key === " ")) return;
    const action = actionOf(event, actions);
    if (!action) return;
    event.preventDefault();
    action();
  });
}

function actionOf(event: KeyboardEvent, actions: KeyActions): (() => void) | undefined {
  const back = event.shiftKey ? -1 : 1;
  switch (event.key) {
    case "ArrowLeft":
      return event.shiftKey ? () => actions.step(-1) : () => actions.pan(-0.15);
    case "ArrowRight":
      return event.shiftKey ? () => actions.step(1) : () => actions.pan(0.15);
    case "a":
      return () => actions.pan(-0.15);
    case "d":
      return () => actions.pan(0.15);
    case "PageUp":
      return () => actions.pan(-0.9);
    case "PageDown":
      return () => actions.pan(0.9);
    case "ArrowUp":
      return () => actions.stepLane(-1);
    case "ArrowDown":
      return () => actions.stepLane(1);
    case "+":
    case "=":
    case "w":
      return () => actions.zoom(0.7);
    case "-":
    case "s":
      return () => actions.zoom(1 / 0.7);
    case "0":
    case "Home":
      return actions.all;
    case "e":
    case "E":
      return () => actions.nextFailure(back);
    case "n":
    case "N":
      return () => actions.nextMatch(back);
    case "Enter":
      return actions.zoomToChosen;
    case "/":
      return actions.search;
    case "?":
      return actions.help;
    case "t":
      return actions.theme;
    case "Escape":
      return actions.clear;
    default:
      return undefined;
  }
}
