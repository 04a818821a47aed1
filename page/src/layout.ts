/** The places of groups and lanes, from top to bottom. */

import type { Group, Index, Lane } from "./index.ts";

/** Height of the ruler above the lanes. */
export const RULER = 20;
/** Height of the line of a group, which shows its queue if there are several groups. */
export const HEAD = 34;
const PLAIN_HEAD = 24;
/** Below the last lane of a group. */
const FOOT = 8;
const LEAST = 8;
const MOST = 22;
/** Height of the marks for errors, at the foot of a lane. */
export const MARKS = 3;
export const GAP = 2;

export interface PlacedGroup {
  group: Group;
  top: number;
  height: number;
  /** Whether the line shows the queue; the queue of the only group is among the charts. */
  hasQueue: boolean;
}

export interface PlacedLane {
  lane: Lane;
  group: Group;
  top: number;
  height: number;
}

export interface Layout {
  groups: PlacedGroup[];
  lanes: PlacedLane[];
  byLane: Map<Lane, PlacedLane>;
  height: number;
}

/** Places the lanes of all groups; they are as high as the room allows, within limits. */
export function place(index: Index, room: number): Layout {
  const hasQueue = index.groups.length > 1;
  const head = hasQueue ? HEAD : PLAIN_HEAD;
  const fixed = RULER + index.groups.length * (head + FOOT);
  const each = Math.floor((room - fixed) / Math.max(1, index.lanes.length));
  const height = Math.max(LEAST, Math.min(MOST, each - GAP));
  const layout: Layout = { groups: [], lanes: [], byLane: new Map(), height: 0 };
  let top = RULER;
  for (const group of index.groups) {
    layout.groups.push({ group, top, height: head, hasQueue });
    top += head;
    for (const lane of group.lanes) {
      const placed = { lane, group, top, height };
      layout.lanes.push(placed);
      layout.byLane.set(lane, placed);
      top += height + GAP;
    }
    top += FOOT;
  }
  layout.height = top;
  return layout;
}
