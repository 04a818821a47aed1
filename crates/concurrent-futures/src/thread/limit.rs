//! The bound on pending tasks.

#![forbid(unsafe_code)]

use crate::current::{Worker, with_worker};
use crate::deadlock::{self, Blocking, Escape, NO_FUTURES, Need, Wait};
use crate::error::{Deadlock, SubmitError};
use crate::future::blocking::Stop;
use crate::signal::{Signal, Woken};
use crate::sync::{Arc, Mutex, MutexGuard, lock};
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
    /// Who waits for room, the first to come first. Each is woken for one place.
    waiting: VecDeque<Arc<Signal>>,
}

/// What to do when there is no room.
#[derive(Clone, Copy)]
pub enum WhenFull<'a> {
    /// Wait, until told to stop.
    Wait(Stop<'a>),
    /// Return an error.
    Refuse,
    /// For tasks of the pool's own workers: if these waited, nobody might be left
    /// to make room.
    Exceed,
}

impl PendingLimit {
    /// So many may be pending.
    #[must_use]
    pub fn new(max: usize) -> Arc<Self> {
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

    /// Takes a place for one task of the executor that `home` identifies. `Ok(None)` when the
    /// executor was closed.
    ///
    /// # Errors
    /// [`SubmitError::Full`], if there is no room, and waiting for it was not wanted or
    /// was stopped. [`SubmitError::NoWorker`], if nobody would ever make room.
    pub fn acquire(
        self: &Arc<Self>,
        home: *const (),
        when_full: WhenFull<'_>,
    ) -> Result<Option<Permit>, SubmitError> {
        let mut state = self.lock();
        let mut has_waited = false;
        while !state.closed && state.pending >= self.max {
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
                        with_worker(|worker| wait(&signal, stop, worker, home))
                    };
                    has_waited = true;
                    state = self.lock();
                    if let Err(error) = waited {
                        state.leave(&signal);
                        return Err(error);
                    }
                }
                WhenFull::Refuse => return Err(SubmitError::Full),
                WhenFull::Exceed => break,
            }
        }
        if state.closed {
            return Ok(None);
        }
        state.pending += 1;
        Ok(Some(Permit(Arc::clone(self))))
    }

    /// Lets all go who wait for room.
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
    home: *const (),
) -> Result<(), SubmitError> {
    let refused = |deadlock: &Deadlock| match &deadlock.refused {
        Some(error) => SubmitError::NoWorker(Arc::clone(error)),
        None => SubmitError::NoWorker(Arc::new(io::Error::other(deadlock.clone()))),
    };
    let blocking = worker
        .map(|worker| {
            let wait = Wait {
                need: Need::Room(home),
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
    /// One who waited goes away. The place it was woken for, if it was, is for the next.
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
            Self::Exceed => "Exceed",
        })
    }
}

impl fmt::Debug for PendingLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "at most {} pending tasks", self.max)
    }
}

/// The place of a pending task; free again when this is dropped.
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
    use crate::sync::{Arc, thread};
    use std::ptr;

    fn check(model: impl Fn() + Send + Sync + 'static) {
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = Some(2);
        builder.check(model);
    }

    fn waiting(limit: &Arc<PendingLimit>) -> thread::JoinHandle<Option<Permit>> {
        let limit = Arc::clone(limit);
        thread::spawn(move || limit.acquire(ptr::null(), WhenFull::Wait(NEVER)).unwrap())
    }

    #[test]
    fn each_place_is_taken_by_one_that_waits_for_it() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(ptr::null(), WhenFull::Refuse).unwrap();
            let others = [(); 2].map(|()| {
                let limit = Arc::clone(&limit);
                thread::spawn(move || {
                    drop(limit.acquire(ptr::null(), WhenFull::Wait(NEVER)).unwrap())
                })
            });
            drop(place);
            for other in others {
                other.join().unwrap();
            }
            assert!(
                limit
                    .acquire(ptr::null(), WhenFull::Refuse)
                    .unwrap()
                    .is_some()
            );
        });
    }

    #[test]
    fn who_stops_waiting_leaves_the_place_to_the_next() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(ptr::null(), WhenFull::Refuse).unwrap();
            let other = waiting(&limit);
            let stopping = thread::spawn({
                let limit = Arc::clone(&limit);
                move || {
                    let signal_came = || true;
                    match limit.acquire(ptr::null(), WhenFull::Wait(&signal_came)) {
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
    fn closing_lets_all_go() {
        check(|| {
            let limit = PendingLimit::new(1);
            let place = limit.acquire(ptr::null(), WhenFull::Refuse).unwrap();
            let other = waiting(&limit);
            limit.close();
            let got = other.join().unwrap();
            assert!(got.is_none());
            drop(place);
        });
    }
}
