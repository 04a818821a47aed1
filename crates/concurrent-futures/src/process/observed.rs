//! What an observer is told, in the right order.
//!
//! A task comes to its turn under the pool's lock, where nothing foreign is called: so what
//! has happened is noted first, and told when the lock is free, by one thread at a time.

#![forbid(unsafe_code)]

use super::callbacks::Callbacks;
use crate::future::FutureId;
use crate::observer::Observer;
use crate::panic::log_panic;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// What has happened to a task.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    Submitted(FutureId),
    Started(FutureId),
    Finished(FutureId),
}

/// An observer, and what it is still to be told.
pub(super) struct Observed {
    observer: Box<dyn Observer>,
    state: Mutex<State>,
    told: Condvar,
    /// The thread that tells the observer what happens while the pool's own threads are busy.
    callbacks: OnceLock<Arc<Callbacks>>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// The thread that is telling them.
    teller: Option<ThreadId>,
    /// Whether it is the next thing that the thread for callbacks does, or one of the next.
    is_scheduled: bool,
}

impl Observed {
    pub(super) fn new(observer: Box<dyn Observer>) -> Self {
        Self {
            observer,
            state: Mutex::default(),
            told: Condvar::new(),
            callbacks: OnceLock::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes what has happened.
    pub(super) fn note(&self, event: Event) {
        self.lock().events.push_back(event);
    }

    /// Leaves to a thread for callbacks what the pool's own threads have to tell.
    pub(super) fn tell_by(&self, callbacks: &Arc<Callbacks>) {
        // A pool has one builder, and so it was not set before.
        let _ = self.callbacks.set(Arc::clone(callbacks));
    }

    /// Lets another thread tell the observer what was noted: an observer may take long.
    pub(super) fn tell_later(self: &Arc<Self>) {
        let mut state = self.lock();
        if state.events.is_empty() || state.is_scheduled {
            return;
        }
        state.is_scheduled = true;
        drop(state);
        let ours = Arc::clone(self);
        match self.callbacks.get() {
            Some(callbacks) => callbacks.run(Box::new(move || ours.tell())),
            None => ours.tell(),
        }
    }

    /// Tells the observer what was noted, unless another thread is at it.
    pub(super) fn tell(&self) {
        let mut state = self.lock();
        state.is_scheduled = false;
        if state.teller.is_some() {
            return;
        }
        while let Some(event) = state.events.pop_front() {
            state.teller = Some(thread::current().id());
            drop(state);
            log_panic("an observer panicked", || match event {
                Event::Submitted(future) => self.observer.submitted(future),
                Event::Started(future) => self.observer.started(future),
                Event::Finished(future) => self.observer.finished(future),
            });
            state = self.lock();
        }
        state.teller = None;
        self.told.notify_all();
    }

    /// Waits until the observer was told everything, unless it is the observer who asks.
    pub(super) fn finish(&self) {
        self.tell();
        let ours = Some(thread::current().id());
        let is_telling = |state: &mut State| state.teller.is_some() && state.teller != ours;
        drop(self.told.wait_while(self.lock(), is_telling));
    }
}

impl std::fmt::Debug for Observed {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Observed").finish_non_exhaustive()
    }
}
