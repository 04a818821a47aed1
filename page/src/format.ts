/** Numbers as a reader wants them. */

const UNITS: [number, string][] = [
  [1e9, "s"],
  [1e6, "ms"],
  [1e3, "µs"],
  [1, "ns"],
];

/** The sign between a number and its unit. */
const NARROW = "\u202f";

/** Returns a number with three significant digits, and without needless zeros. */
export function digits(value: number): string {
  const size = Math.abs(value);
  if (size >= 999.5) return group(Math.round(value));
  if (size >= 99.95) return value.toFixed(0);
  if (size >= 9.995) return trim(value.toFixed(1));
  return trim(value.toFixed(2));
}

function trim(text: string): string {
  return text.replace(/\.?0+$/, "");
}

/** Returns a whole number with a comma between thousands. */
export function group(value: number): string {
  return Math.round(value).toLocaleString("en-US");
}

/** Returns a number in few characters, such as 12.3 k. */
export function short(value: number): string {
  const size = Math.abs(value);
  for (const [unit, name] of [
    [1e9, "G"],
    [1e6, "M"],
    [1e4, "k"],
  ] as const) {
    const divisor = name === "k" ? 1e3 : unit;
    if (size >= unit) return `${digits(value / divisor)}${NARROW}${name}`;
  }
  return digits(value);
}

/** Returns a length of time in nanoseconds with its unit. */
export function duration(nanoseconds: number): string {
  if (!Number.isFinite(nanoseconds)) return "–";
  const size = Math.abs(nanoseconds);
  if (size >= 59.95e9) return minutes(nanoseconds);
  if (size < 0.5) return `0${NARROW}s`;
  for (const [unit, name] of UNITS) {
    if (size >= unit * 0.9995) return `${digits(nanoseconds / unit)}${NARROW}${name}`;
  }
  return `${digits(nanoseconds)}${NARROW}ns`;
}

function minutes(nanoseconds: number): string {
  const sign = nanoseconds < 0 ? "−" : "";
  const seconds = Math.round(Math.abs(nanoseconds) / 1e9);
  const days = Math.floor(seconds / 86400);
  const hours = Math.floor((seconds % 86400) / 3600);
  const rest = Math.floor((seconds % 3600) / 60);
  if (days > 0) return `${sign}${group(days)}${NARROW}d ${hours}${NARROW}h`;
  if (hours > 0) return `${sign}${hours}${NARROW}h ${rest}${NARROW}min`;
  return `${sign}${rest}${NARROW}min ${seconds % 60}${NARROW}s`;
}

/** Returns a moment for an axis whose marks are `step` apart, so that neighbours differ. */
export function moment(nanoseconds: number, step: number): string {
  if (nanoseconds === 0) return "0";
  const size = Math.max(Math.abs(nanoseconds), step);
  const [unit, name] = UNITS.find(([unit]) => size >= unit) ?? [1, "ns"];
  const places = Math.min(9, Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9)));
  const value = (nanoseconds / unit).toLocaleString("en-US", {
    minimumFractionDigits: places,
    maximumFractionDigits: places,
  });
  return `${value.replace("-", "−")}${NARROW}${name}`;
}

/** Returns the marks of an axis: round moments, at most about `most` of them. */
export function marks(from: number, to: number, most: number): { step: number; moments: number[] } {
  const least = (to - from) / Math.max(1, most);
  if (!(least > 0) || !Number.isFinite(least)) return { step: 1, moments: [] };
  const power = 10 ** Math.floor(Math.log10(least));
  const step = [1, 2, 5, 10].map((digit) => digit * power).find((step) => step >= least * (1 - 1e-9)) ?? power * 10;
  const moments: number[] = [];
  const first = Math.ceil(from / step);
  for (let i = 0; i <= most + 1 && (first + i) * step <= to; i++) moments.push((first + i) * step);
  return { step, moments };
}

/** Returns a number of bytes with its unit. */
export function bytes(count: number): string {
  for (const [unit, name] of [
    [1 << 30, "GiB"],
    [1 << 20, "MiB"],
    [1 << 10, "KiB"],
  ] as const) {
    if (count >= unit) return `${digits(count / unit)}${NARROW}${name}`;
  }
  return `${group(count)}${NARROW}B`;
}

/** Returns a share of 1 in percent. */
export function percent(share: number): string {
  if (share > 0 && share < 0.01) return `< 1${NARROW}%`;
  if (share < 1 && share > 0.99) return `> 99${NARROW}%`;
  return `${Math.round(share * 100)}${NARROW}%`;
}

/** Returns a count with its noun, such as "1 task" or "1,200 tasks". */
export function counted(count: number, noun: string, plural = `${noun}s`): string {
  return `${group(count)} ${count === 1 ? noun : plural}`;
}

const SMALL = ["no", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"];

/** Returns a small number as a word. */
export function word(count: number): string {
  return SMALL[count] ?? group(count);
}

/** Returns a text on one line, without its middle if it is too long: the end tells numbered texts apart. */
export function withoutMiddle(text: string, length: number): string {
  const line = text.replace(/\s+/g, " ").trim();
  if (line.length <= length) return line;
  const end = Math.ceil((length - 1) * 0.7);
  return `${line.slice(0, length - 1 - end)}…${line.slice(line.length - end)}`;
}

/** Returns a text on one line, cut at a length. */
export function oneLine(text: string, length: number): string {
  const line = text.replace(/\s+/g, " ").trim();
  return line.length > length ? `${line.slice(0, length - 1)}…` : line;
}
