/** Sorting and searching in typed arrays. */

/** Below this a comparison sort is as fast as a radix sort. */
const FEW = 1024;

/**
 * Returns `rows` in the order of their keys; rows with equal keys keep their order.
 * No key may be NaN.
 */
export function order(rows: Uint32Array, keys: ArrayLike<number>): Uint32Array {
  let sorted = true;
  for (let i = 1; i < rows.length && sorted; i++) sorted = keys[rows[i - 1]] <= keys[rows[i]];
  if (sorted) return rows;
  if (rows.length < FEW) return Uint32Array.from(Array.from(rows).sort((a, b) => keys[a] - keys[b]));
  return radix(rows, keys);
}

/** Radix sort by the bits of the keys, 16 at a time. */
function radix(rows: Uint32Array, keys: ArrayLike<number>): Uint32Array {
  const count = rows.length;
  const numbers = new Float64Array(count);
  // `+ 0` makes -0 to 0, which is the same key.
  for (let i = 0; i < count; i++) numbers[i] = keys[rows[i]] + 0;
  const bits = new Uint32Array(numbers.buffer);
  for (let i = 0; i < count; i++) {
    // Unsigned order of the bits is the order of the numbers after this.
    if (bits[2 * i + 1] & 0x80000000) {
      bits[2 * i] = ~bits[2 * i];
      bits[2 * i + 1] = ~bits[2 * i + 1];
    } else {
      bits[2 * i + 1] |= 0x80000000;
    }
  }
  const digits = new Uint16Array(numbers.buffer);
  let from = new Uint32Array(count);
  for (let i = 0; i < count; i++) from[i] = i;
  let to = new Uint32Array(count);
  const places = new Uint32Array(65537);
  for (let digit = 0; digit < 4; digit++) {
    places.fill(0);
    for (let i = 0; i < count; i++) places[digits[4 * i + digit] + 1]++;
    if (places[digits[digit] + 1] === count) continue;
    for (let i = 1; i < 65537; i++) places[i] += places[i - 1];
    for (let i = 0; i < count; i++) to[places[digits[4 * from[i] + digit]]++] = from[i];
    [from, to] = [to, from];
  }
  for (let i = 0; i < count; i++) to[i] = rows[from[i]];
  return to;
}

/** Returns the first index at or after `from` whose value is at least `wanted`. */
export function lowerBound(sorted: ArrayLike<number>, wanted: number, from = 0, to = sorted.length): number {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (sorted[middle] < wanted) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** Returns the first index at or after `from` whose value is greater than `wanted`. */
export function upperBound(sorted: ArrayLike<number>, wanted: number, from = 0, to = sorted.length): number {
  while (from < to) {
    const middle = (from + to) >>> 1;
    if (sorted[middle] <= wanted) from = middle + 1;
    else to = middle;
  }
  return from;
}

/** Like `lowerBound`, for an answer that is probably near `from`. */
export function gallop(sorted: ArrayLike<number>, wanted: number, from: number): number {
  let step = 1;
  let below = from;
  while (below + step < sorted.length && sorted[below + step] < wanted) {
    below += step;
    step *= 2;
  }
  return lowerBound(sorted, wanted, below, Math.min(sorted.length, below + step));
}

/**
 * Splits rows by a key in `0..size` and returns the rows of each key, in their order.
 * The arrays are parts of one.
 */
export function split(rows: Uint32Array, keys: ArrayLike<number>, size: number): Uint32Array[] {
  const ends = new Uint32Array(size + 1);
  for (const row of rows) ends[keys[row] + 1]++;
  for (let key = 0; key < size; key++) ends[key + 1] += ends[key];
  const begins = ends.slice();
  const sorted = new Uint32Array(rows.length);
  for (const row of rows) sorted[begins[keys[row]]++] = row;
  return Array.from({ length: size }, (_, key) => sorted.subarray(ends[key], ends[key + 1]));
}

/** Returns the value below which the share `share` of a sorted, non-empty array lies. */
export function quantile(sorted: Float64Array, share: number): number {
  const place = (sorted.length - 1) * share;
  const below = Math.floor(place);
  const above = Math.min(below + 1, sorted.length - 1);
  return sorted[below] + (sorted[above] - sorted[below]) * (place - below);
}
