//! The lanes of a host in recordings: the place of each call among the workers, and when it began.
//!
//! The pool does not tell which worker has a call. So the host keeps a model of the pool. A *lane* has one call at a time,
//! and there are as many as slots. A call that finds no free lane waits for one: it has gone to the pool ahead. When a call
//! ends, the first one that waits gets its lane, and begins.
//!
//! The pool may choose another one. Then a call ends that still waits here. It takes the lane of the call that began
//! last, which waits again. So calls of a lane never overlap, and none is begun before it is with the pool. Only short calls
//! go ahead, so that the times are wrong by little.

#![forbid(unsafe_code)]

use std::collections::VecDeque;

/// A call, and since when it is on its lane, or with the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Placed {
    call: u64,
    since: u64,
}

/// The lanes of a host, and the calls that wait for one. Calls have numbers.
#[derive(Debug, Default)]
pub(super) struct Lanes {
    lanes: Vec<Option<Placed>>,
    waiting: VecDeque<Placed>,
}

impl Lanes {
    /// Notes that a call goes to the pool, which has so many slots.
    pub(super) fn enter(&mut self, call: u64, slots: usize, now: u64) {
        let free = self.lanes.iter().position(Option::is_none);
        let placed = Placed { call, since: now };
        match free {
            Some(free) if free < slots => self.lanes[free] = Some(placed),
            None if self.lanes.len() < slots => self.lanes.push(Some(placed)),
            _ => self.waiting.push_back(placed),
        }
    }

    /// Notes that a call has ended. Returns its lane, and when it began.
    pub(super) fn end(&mut self, call: u64, now: u64) -> (usize, u64) {
        let entered = self.waiting.iter().find(|waiting| waiting.call == call);
        let entered = entered.map_or(now, |waiting| waiting.since);
        if let Some(found) = self.leave(call, now) {
            return found;
        }
        let lanes = self.lanes.iter().enumerate();
        let begun = lanes.filter_map(|(lane, begun)| Some((lane, (*begun)?)));
        match begun.max_by_key(|(_, begun)| begun.since) {
            Some((lane, last)) => {
                self.waiting.push_front(last);
                self.lanes[lane] = self.next(now);
                (lane, last.since.max(entered))
            }
            None => (0, now),
        }
    }

    /// Notes that a call has left the pool. Returns its lane, and when it began, if it has begun.
    pub(super) fn leave(&mut self, call: u64, now: u64) -> Option<(usize, u64)> {
        let is_it = |begun: &Option<Placed>| begun.is_some_and(|begun| begun.call == call);
        let Some(lane) = self.lanes.iter().position(is_it) else {
            self.waiting.retain(|waiting| waiting.call != call);
            return None;
        };
        let next = self.next(now);
        let begun = std::mem::replace(&mut self.lanes[lane], next);
        begun.map(|begun| (lane, begun.since))
    }

    /// Takes the first call that waits: it begins.
    fn next(&mut self, now: u64) -> Option<Placed> {
        let next = self.waiting.pop_front()?;
        Some(Placed { since: now, ..next })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_that_waits_gets_the_lane_of_one_that_ends() {
        let mut lanes = Lanes::default();
        for call in 1..=4 {
            lanes.enter(call, 2, call);
        }
        assert_eq!(lanes.end(2, 10), (1, 2));
        assert_eq!(lanes.end(3, 20), (1, 10));
        assert_eq!(lanes.end(1, 30), (0, 1));
        assert_eq!(lanes.end(4, 40), (1, 20));
        lanes.enter(5, 2, 50);
        assert_eq!(lanes.end(5, 60), (0, 50));
    }

    #[test]
    fn a_call_that_ends_out_of_order_has_a_lane_for_itself() {
        let mut lanes = Lanes::default();
        for call in 1..=4 {
            lanes.enter(call, 2, call);
        }
        // The pool has given the fourth one to the second worker.
        assert_eq!(lanes.end(4, 10), (1, 4));
        assert_eq!(lanes.end(2, 20), (1, 10));
        // The third one was recalled.
        assert_eq!(lanes.leave(3, 30), Some((1, 20)));
        assert_eq!(lanes.end(1, 40), (0, 1));
        // One that waits, and leaves; and one that is not known.
        lanes.enter(5, 1, 50);
        lanes.enter(6, 1, 50);
        assert_eq!(lanes.leave(6, 60), None);
        assert_eq!(lanes.end(5, 70), (0, 50));
        assert_eq!(lanes.end(7, 80), (0, 80));
    }

    #[test]
    fn calls_of_a_lane_never_overlap() {
        for seed in 0..200_u64 {
            let mut random = crate::memory::Random(seed);
            let mut lanes = Lanes::default();
            let (mut there, mut runs) = (Vec::new(), Vec::new());
            for now in 1..200 {
                if random.below(2) == 0 {
                    there.push((now, now));
                    lanes.enter(now, 3, now);
                } else if !there.is_empty() {
                    let index = usize::try_from(random.below(there.len() as u64)).unwrap();
                    let (call, entered) = there.remove(index);
                    if random.below(8) == 0 {
                        lanes.leave(call, now);
                    } else {
                        let (lane, start) = lanes.end(call, now);
                        assert!(entered <= start && start <= now);
                        runs.push((lane, start, now));
                    }
                }
            }
            runs.sort_unstable();
            for pair in runs.windows(2) {
                let ((lane, _, end), (next, start, _)) = (pair[0], pair[1]);
                assert!(lane != next || end <= start, "seed {seed}: {pair:?}");
            }
        }
    }
}
