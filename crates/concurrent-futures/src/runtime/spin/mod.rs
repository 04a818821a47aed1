//! All spinning of the engine: a thread looks again for a bounded time before it parks.
//!
//! # Places of spinning
//! | thread | waits for | policy | why so |
//! |---|---|---|---|
//! | worker thread without a task (`thread/worker.rs`) | a task in the queue | [`Spin::Thread`] | a look is one load, and the submitter is a thread of this process |
//! | parked spare worker that may be called (`thread/spare.rs`) | its call | [`Spin::Thread`] | as above |
//! | thread that waits for one future (`future/blocking.rs`) | the state's word | [`Spin::Thread`] | as above |
//! | thread that waits for many (`future/ready.rs`) | the ready list | [`Spin::Thread`] | as above |
//! | thread that waits for some of many (`future/wait.rs`) | one of their states | [`Spin::Looks`] | a look reads many states: the number of looks is bounded by their length |
//! | process worker (`process/worker/mod.rs`) | a frame, or room for one | [`Spin::Place`] | the peer is another process, which may be on the same CPU |
//! | supervisor (`process/pool/supervisor/mod.rs`) | replies, while no helper waits | [`Spin::Place`] | as above, and all threads of the pool share what they learn |
//! | helper (`process/pool/mod.rs`) | replies | [`Spin::Place`] | as above |
//! | thread of Python before it attaches (`interp/waiting.rs` of the package) | the other thread's detaching | [`spin_limit`] | some dozen turns |
//!
//! With one CPU no thread spins: the awaited event cannot happen meanwhile. [`Backoff`](crate::runtime::sync::Backoff)
//! is no spinning of this kind: it waits out a few instructions of another thread, and never parks.

#![forbid(unsafe_code)]

#[cfg(not(loom_models))]
mod history;
#[cfg_attr(
    not(all(feature = "process", unix)),
    allow(dead_code, reason = "only process pools have such places")
)]
pub(crate) mod place;

use crate::runtime::spin::place::Place;
use crate::runtime::sync::{spin_loop, thread};
use std::time::{Duration, Instant};

/// The longest time of a yield that gives the CPU to the peer. A longer yield has given it to an unrelated
/// thread.
const TURN: Duration = Duration::from_millis(1);

/// Looks from one yield to the next, where a look is one load.
const TURNS_BETWEEN_YIELDS: u32 = 64;

/// The outcome of a spin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waited {
    Held,
    InVain,
    /// Other programs want the CPU.
    Crowded,
}

/// A policy of spinning: how long a thread spins, and what it learns from that.
#[derive(Clone, Copy)]
pub(crate) enum Spin<'a> {
    /// Looks for about as long as a sleep costs, or for less if spinning did not help this thread lately.
    Thread,
    /// Looks this many times, and yields after each look. For looks that take a while themselves.
    Looks(u32),
    /// Looks for a little longer than waking the peer takes, unless that did not pay at this place lately.
    /// Yields if the function tells that the peer was last on the CPU of the calling thread.
    #[cfg_attr(
        not(all(feature = "process", unix)),
        allow(dead_code, reason = "only process pools have such places")
    )]
    Place(&'a Place, &'a dyn Fn() -> bool),
}

impl Spin<'_> {
    /// Spins until `condition` holds, or it is time to sleep. Returns whether the condition held.
    #[inline]
    pub(crate) fn until(self, condition: impl FnMut() -> bool) -> bool {
        match self {
            #[cfg(not(loom_models))]
            Self::Thread => history::with(|turns| look(turns, TURNS_BETWEEN_YIELDS, condition)),
            #[cfg(loom_models)]
            Self::Thread => look(spin_limit(), TURNS_BETWEEN_YIELDS, condition).0,
            #[cfg(not(loom_models))]
            Self::Looks(looks) => history::with_looks(looks, |looks| look(looks, 1, condition)),
            #[cfg(loom_models)]
            Self::Looks(_) => look(0, 1, condition).0,
            Self::Place(place, is_beside) => place.until(condition, is_beside),
        }
    }
}

/// Looks this many times, and once more. Yields after each `step` looks. Returns whether the condition held, and the
/// outcome to learn from: the machine is crowded if the thread has lost its CPU meanwhile.
fn look(turns: u32, step: u32, mut condition: impl FnMut() -> bool) -> (bool, Waited) {
    let mut clock = None;
    for turn in 1..=turns {
        if condition() {
            return (true, learnt(clock, Waited::Held));
        }
        if turn.is_multiple_of(step) {
            if learnt(clock, Waited::InVain) == Waited::Crowded {
                return (condition(), Waited::Crowded);
            }
            clock = Some(Instant::now());
            // The thread that makes the condition true may be waiting for our CPU.
            thread::yield_now();
        } else {
            spin_loop();
        }
    }
    let holds = condition();
    let waited = if holds { Waited::Held } else { Waited::InVain };
    (holds, learnt(clock, waited))
}

fn learnt(last_yield: Option<Instant>, waited: Waited) -> Waited {
    if last_yield.is_some_and(|last| last.elapsed() > TURN) {
        Waited::Crowded
    } else {
        waited
    }
}

/// Returns how many times a thread looks again, at most, before it goes to sleep. Spinning so lasts longer
/// than waking a thread on an idle CPU takes (tens of microseconds). If it were shorter, two threads that
/// hand tasks to and fro would each be asleep whenever the other has woken up.
pub fn spin_limit() -> u32 {
    #[cfg(loom_models)]
    return 1;
    #[cfg(not(loom_models))]
    {
        use std::sync::atomic::{AtomicU32, Ordering};
        const UNKNOWN: u32 = u32::MAX;
        /// The calls of `spin_limit` before the CPUs are counted, for which files are read. A program that
        /// calls it seldom does not spin.
        const SELDOM: u32 = 8;
        const AT_FIRST: u32 = UNKNOWN - SELDOM;
        // No `OnceLock`: should the process fork while some thread finds out, the child
        // would wait for that thread forever.
        static LIMIT: AtomicU32 = AtomicU32::new(AT_FIRST);
        // ORDERING: Relaxed: a count of looks, and a number that each thread would find.
        match LIMIT.load(Ordering::Relaxed) {
            UNKNOWN => {
                // With one CPU, what is waited for cannot happen while we spin.
                let limit = match thread::available_parallelism() {
                    Ok(cpus) if cpus.get() == 1 => 0,
                    _ => 1600,
                };
                LIMIT.store(limit, Ordering::Relaxed);
                limit
            }
            asked @ AT_FIRST.. => {
                LIMIT.store(asked + 1, Ordering::Relaxed);
                0
            }
            limit => limit,
        }
    }
}
