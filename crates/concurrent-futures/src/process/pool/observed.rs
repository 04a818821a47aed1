//! The events for an observer, in the right order.
//!
//! A task comes to its turn under the pool's lock, under which no foreign code may run. So an event is noted
//! first, and reported when the lock is free, by one thread at a time.

#![forbid(unsafe_code)]

use crate::id::FutureId;
use crate::observer::Observer;
use crate::process::pool::callbacks::Callbacks;
use crate::task::panic::log_panic;
use std::collections::VecDeque;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread::{self, ThreadId};

/// An event in the life of a task.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Event {
    Submitted(FutureId),
    Started(FutureId),
    Finished(FutureId),
}

/// An observer, and the events that it is still to be told.
pub(crate) struct Observed {
    observer: Box<dyn Observer>,
    state: Mutex<State>,
    told: Condvar,
    /// The thread that calls the observer while the pool's own threads are busy.
    callbacks: OnceLock<Arc<Callbacks>>,
}

#[derive(Default)]
struct State {
    events: VecDeque<Event>,
    /// The thread that is calling the observer.
    teller: Option<ThreadId>,
    /// Whether the thread for callbacks is to call the observer as one of its next jobs.
    is_scheduled: bool,
}

impl Observed {
    pub(crate) fn new(observer: Box<dyn Observer>) -> Self {
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

    /// Notes an event.
    pub(crate) fn note(&self, event: Event) {
        self.lock().events.push_back(event);
    }

    /// Lets a thread for callbacks report the events of the pool's own threads.
    pub(crate) fn tell_by(&self, callbacks: &Arc<Callbacks>) {
        // A pool has one builder, and so it was not set before.
        let _ = self.callbacks.set(Arc::clone(callbacks));
    }

    /// Lets another thread report the noted events: an observer may take long.
    pub(crate) fn tell_later(self: &Arc<Self>) {
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

    /// Reports the noted events to the observer, unless another thread is doing so.
    pub(crate) fn tell(&self) {
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

    /// Waits until all events were reported, unless the calling thread is in the observer.
    pub(crate) fn finish(&self) {
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
