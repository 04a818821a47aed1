/** Numbers of things that come and go, such as busy workers, over time. */

import { lowerBound, upperBound } from "./order.ts";

/** Up to this many events of a span are added one by one. */
const FEW = 64;

/** A count that grows at each moment of `enter` and shrinks at each moment of `leave`. */
export class Flow {
  readonly enter: Float64Array;
  readonly leave: Float64Array;
  private readonly enterSums: Float64Array;
  private readonly leaveSums: Float64Array;

  /** Takes the moments in any order. */
  constructor(enter: Float64Array, leave: Float64Array) {
    this.enter = enter.sort();
    this.leave = leave.sort();
    this.enterSums = sums(enter);
    this.leaveSums = sums(leave);
  }

  /** The count at a moment. */
  at(moment: number): number {
    return upperBound(this.enter, moment) - upperBound(this.leave, moment);
  }

  /** The mean count of a span. */
  mean(from: number, to: number): number {
    if (!(to > from)) return this.at(from);
    const came = weight(this.enter, this.enterSums, from, to);
    const left = weight(this.leave, this.leaveSums, from, to);
    const mean = this.at(from) + (came - left) / (to - from);
    return mean < 1e-9 ? 0 : mean;
  }

  /** The largest count of a span; reads all its events. */
  max(from: number, to: number): number {
    let i = upperBound(this.enter, from);
    let j = upperBound(this.leave, from);
    let max = i - j;
    while (i < this.enter.length && this.enter[i] <= to) {
      while (j < this.leave.length && this.leave[j] <= this.enter[i]) j++;
      i++;
      if (i - j > max) max = i - j;
    }
    return max;
  }
}

/** Returns the sum of `to - moment` over the moments in (from, to]. */
function weight(moments: Float64Array, prefix: Float64Array, from: number, to: number): number {
  const first = upperBound(moments, from);
  const last = upperBound(moments, to, first);
  if (last - first <= FEW) {
    let sum = 0;
    for (let i = first; i < last; i++) sum += to - moments[i];
    return sum;
  }
  return (last - first) * (to - moments[0]) - (prefix[last] - prefix[first]);
}

/** Returns the sums of the first 0, 1, 2… values, less the first value each, as exact as numbers can be. */
function sums(values: Float64Array): Float64Array {
  const found = new Float64Array(values.length + 1);
  let sum = 0;
  let lost = 0;
  for (let i = 0; i < values.length; i++) {
    const value = values[i] - values[0];
    const next = sum + value;
    lost += sum >= value ? sum - next + value : value - next + sum;
    sum = next;
    found[i + 1] = sum + lost;
  }
  return found;
}

/** Counted events over time, each with a weight. */
export class Rate {
  private readonly moments: Float64Array;
  private readonly totals: Float64Array;

  /** Takes the moments in order. */
  constructor(moments: Float64Array, weights: ArrayLike<number>) {
    this.moments = moments;
    this.totals = new Float64Array(moments.length + 1);
    for (let i = 0; i < moments.length; i++) this.totals[i + 1] = this.totals[i] + weights[i];
  }

  /** The sum of the weights of a span. */
  count(from: number, to: number): number {
    const first = lowerBound(this.moments, from);
    return this.totals[lowerBound(this.moments, to, first)] - this.totals[first];
  }
}
