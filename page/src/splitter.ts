/** The bar between the lanes and the table, which moves by pointer and by keys. */

const LEAST = 220;

export function listenToSplitter(splitter: HTMLElement, onChange: () => void): void {
  const root = document.documentElement;
  const set = (width: number) => {
    const most = Math.max(LEAST, innerWidth - 360);
    const chosen = Math.round(Math.min(most, Math.max(LEAST, width)));
    root.style.setProperty("--side", `${chosen}px`);
    splitter.setAttribute("aria-valuenow", String(chosen));
    splitter.setAttribute("aria-valuemin", String(LEAST));
    splitter.setAttribute("aria-valuemax", String(most));
    onChange();
  };
  const current = () => (splitter.nextElementSibling as HTMLElement).offsetWidth;
  splitter.setAttribute("aria-valuenow", String(current()));
  splitter.addEventListener("pointerdown", (event) => {
    splitter.setPointerCapture(event.pointerId);
    event.preventDefault();
  });
  splitter.addEventListener("pointermove", (event) => {
    if (splitter.hasPointerCapture(event.pointerId)) set(innerWidth - event.clientX);
  });
  splitter.addEventListener("keydown", (event) => {
    if (event.key === "ArrowLeft") set(current() + 24);
    else if (event.key === "ArrowRight") set(current() - 24);
    else return;
    event.preventDefault();
  });
}
