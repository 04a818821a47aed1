//! The bound on pending tasks, `max_pending`, which is enforced here for all executors.
//!
//! A pool has one [`PendingLimit`]. [`admit`] takes a permit for a task before the task is submitted; the permit is
//! dropped when the task starts or is cancelled.

#![forbid(unsafe_code)]

use crate::deadlock::{self, Blocking, Escape, NO_FUTURES, Need, Wait};
use crate::error::{BuildError, Deadlock, SubmitError};
use crate::future::blocking::Stop;
use crate::id::PoolId;
use crate::runtime::os::signal::{Signal, Woken};
use crate::runtime::sync::{Arc, Mutex, MutexGuard, lock};
use crate::task::current::{Worker, is_worker_of, with_worker};
use std::collections::VecDeque;
use std::fmt;
use std::io;

/// Counts pending tasks, and makes submitters wait for room.
pub struct PendingLimit {
    max: usize,
    state: Mutex<State>,
}

struct State {
    pending: usize,
    closed: bool,
    /// The threads that wait for room, in the order of their arrival. Each is woken for one permit.
    waiting: VecDeque<Arc<Signal>>,
}

/// The behaviour of a submission that finds no room.
#[derive(Clone, Copy)]
pub enum WhenFull<'a> {
    /// Waits until there is room, or until told to stop.
    Wait(Stop<'a>),
    /// Returns an error.
    Refuse,
}

/// Takes a permit for one task of a pool; none if the pool has no `limit`. `closed` makes the error of a pool that
/// was closed.
///
/// A task of one of the pool's own workers exceeds the limit: if all workers waited for room, no worker would
/// make room.
///
/// # Errors
/// [`SubmitError::Full`], if there is no room, and waiting for it was not wanted or
/// was stopped. [`SubmitError::NoWorker`], if no thread would ever make room.
#[inline]
pub fn admit(
    limit: Option<&Arc<PendingLimit>>,
    pool: PoolId,
    when_full: WhenFull<'_>,
    closed: impl FnOnce() -> SubmitError,
) -> Result<Option<Permit>, SubmitError> {
    match limit {
        None => Ok(None),
        Some(limit) => limit.acquire(pool, when_full)?.map(Some).ok_or_else(closed),
    }
}

impl PendingLimit {
    /// Makes the limit of a pool; none if pending tasks are not bounded.
    ///
    /// # Errors
    /// [`BuildError::ZeroPending`] for a limit of no task.
    pub fn bound(max_pending: Option<usize>) -> Result<Option<Arc<Self>>, BuildError> {
        match max_pending {
            Some(0) => Err(BuildError::ZeroPending),
            max => Ok(max.map(Self::new)),
        }
    }

    fn new(max: usize) -> Arc<Self> {
        Arc::new(Self {
            max,
            state: Mutex::new(State {
                pending: 0,
                closed: false,
                waiting: VecDeque::new(),
            }),
        })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }

    /// Takes a permit, as [`admit`] does. Returns none when the pool was closed.
    fn acquire(
        self: &Arc<Self>,
        pool: PoolId,
        when_full: WhenFull<'_>,
    ) -> Result<Option<Permit>, SubmitError> {
        let exceeds = is_worker_of(pool);
        let mut state = self.lock();
        let mut has_waited = false;
        while !state.closed && state.pending >= self.max && !exceeds {
            match when_full {
                WhenFull::Wait(stop) => {
                    let signal = Arc::new(Signal::new());
                    state.waiting.push_back(Arc::clone(&signal));
                    drop(state);
                    // Another may have been quicker. Then a signal of the system that came together
                    // with the wake-up is not to be left until the next wake-up.
                    let waited = if has_waited && stop() {
                        Err(SubmitError::Full)
                    } else {
                        with_worker(|worker| wait(&signal, stop, worker, pool))
                    };
                    has_waited = true;
                    state = self.lock();
                    if let Err(error) = waited {
                        state.leave(&signal);
                        return Err(error);
                    }
                }
                WhenFull::Refuse => return Err(SubmitError::Full),
            }
        }
        if state.closed {
            return Ok(None);
        }
        state.pending += 1;
        Ok(Some(Permit(Arc::clone(self))))
    }

    /// Lets all threads go that wait for room.
    pub fn close(&self) {
        let mut state = self.lock();
        state.closed = true;
        for signal in state.waiting.drain(..) {
            signal.notify();
        }
    }
}

/// Waits for the signal, which means room.
fn wait(
    signal: &Arc<Signal>,
    stop: Stop<'_>,
    worker: Option<&Worker<'_>>,
    pool: PoolId,
) -> Result<(), SubmitError> {
    let refused = |deadlock: &Deadlock| match deadlock.refused() {
        Some(error) => SubmitError::NoWorker(Arc::clone(error)),
        None => SubmitError::NoWorker(Arc::new(io::Error::other(deadlock.clone()))),
    };
    let blocking = worker
        .map(|worker| {
            let wait = Wait {
                need: Need::Room(pool),
                futures: NO_FUTURES,
                is_timed: false,
                escape: Escape::Error(Arc::clone(signal)),
            };
            deadlock::block(worker, wait)
        })
        .transpose()
        .map_err(|deadlock| refused(&deadlock))?;
    let interrupted = || {
        let deadlock = blocking.as_ref().and_then(Blocking::interrupted);
        deadlock.map_or(Ok(()), |deadlock| Err(refused(deadlock)))
    };
    loop {
        interrupted()?;
        match signal.wait_once(None) {
            Woken::Notified => return interrupted(),
            Woken::Early if stop() => return Err(SubmitError::Full),
            Woken::Early | Woken::Expired => {}
        }
    }
}

impl State {
    /// Removes a waiting thread. If it was woken for a permit, the permit goes to the next thread.
    fn leave(&mut self, signal: &Arc<Signal>) {
        let before = self.waiting.len();
        self.waiting.retain(|waiting| !Arc::ptr_eq(waiting, signal));
        if self.waiting.len() == before {
            self.wake_one();
        }
    }

    fn wake_one(&mut self) {
        if let Some(signal) = self.waiting.pop_front() {
            signal.notify();
        }
    }
}

impl fmt::Debug for WhenFull<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Wait(_) => "Wait",
            Self::Refuse => "Refuse",
        })
    }
}

impl fmt::Debug for PendingLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} pending tasks", self.max)
    }
}

/// The permit of a pending task, which is released when this is dropped.
#[derive(Debug)]
pub struct Permit(Arc<PendingLimit>);

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.pending -= 1;
        state.wake_one();
    }
}

#[cfg(all(test, loom_models))]
mod models {
    use super::{PendingLimit, Permit, SubmitError, WhenFull};
    use crate::future::blocking::NEVER;
    use crate::id::PoolId;
    use crate::runtime::explored;
    use crate::runtime::sync::{Arc, thread};

    fn check(model: impl Fn() + Send + Sync + 'static) {
        explored::check(Some(2), model);
    }

    fn waiting(limit: &Arc<PendingLimit>) -> thread::JoinHandle<Option<Permit>> {
        let limit = Arc::clone(limit);
        thread::spawn(move || {
            limit
                .acquire(PoolId::next(), WhenFull::Wait(NEVER))
                .unwrap()
        })
    }

    #[test]
    fn each_freed_permit_wakes_one_waiting_submitter() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(PoolId::next(), WhenFull::Refuse).unwrap();
            let others = [(); 2].map(|()| {
                let limit = Arc::clone(&limit);
                thread::spawn(move || {
                    drop(
                        limit
                            .acquire(PoolId::next(), WhenFull::Wait(NEVER))
                            .unwrap(),
                    )
                })
            });
            drop(place);
            for other in others {
                other.join().unwrap();
            }
            assert!(
                limit
                    .acquire(PoolId::next(), WhenFull::Refuse)
                    .unwrap()
                    .is_some()
            );
        });
    }

    #[test]
    fn a_submitter_that_gives_up_leaves_the_permit_to_the_next() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(PoolId::next(), WhenFull::Refuse).unwrap();
            let other = waiting(&limit);
            let stopping = thread::spawn({
                let limit = Arc::clone(&limit);
                move || {
                    let signal_came = || true;
                    match limit.acquire(PoolId::next(), WhenFull::Wait(&signal_came)) {
                        Ok(place) => drop(place),
                        Err(error) => assert!(matches!(error, SubmitError::Full)),
                    }
                }
            });
            // A signal of the system ends one sleep, perhaps.
            let first = limit.lock().waiting.front().map(Arc::clone);
            if let Some(signal) = first {
                signal.interrupt();
            }
            drop(place);
            assert!(other.join().unwrap().is_some());
            stopping.join().unwrap();
        });
    }

    #[test]
    fn closing_wakes_all_waiting_submitters() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(PoolId::next(), WhenFull::Refuse).unwrap();
            let other = waiting(&limit);
            limit.close();
            let got = other.join().unwrap();
            assert!(got.is_none());
            drop(place);
        });
    }
}
