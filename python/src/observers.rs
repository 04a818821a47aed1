//! Python code that observes a future: its condition, those who wait in the way of the
//! standard library, and callbacks.
//!
//! # Protocol
//! Most futures have no observers: they are finished by one compare-exchange. The first
//! use of `_condition`, `_waiters` or `add_done_callback` makes the observers and *flags*
//! the state; from then on, whoever makes the future done comes here.
//!
//! 1. If there is a condition, a future gets done while it is held, and not otherwise.
//!    The standard library's `wait` and `as_completed` hold it while they look at the state and add
//!    their waiter, so that they see the future as not done, and are told; or as done,
//!    and are not.
//! 2. A condition is put here before the state is flagged. Whoever finds the state flagged but no
//!    condition makes the future done under our lock, which whoever puts one must take.
//! 3. A callback is added under our lock if the future is not done, and the callbacks are
//!    looked at under it after the future is done. So each is run once: by the thread that
//!    finished the future, or by the one that came too late to add it.
//! 4. The callbacks stay where they are when they have been called. If somebody has asked for
//!    `_done_callbacks`, they are in that list, which is read as it is at that moment.

use crate::future::Future;
use crate::interrupts::cannot_be_told;
use crate::name;
use crate::plain;
use crate::process::stay;
use crate::stdlib;
use concurrent_futures::engine::{Advance, Phase};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

#[derive(Default)]
pub(crate) struct Observers {
    parts: Mutex<Parts>,
    /// Whether the callbacks are in a list; once they are, they stay there.
    has_list: AtomicBool,
}

#[derive(Default)]
struct Parts {
    condition: Option<Py<PyAny>>,
    /// A list, unless somebody has put something else there.
    waiters: Option<Py<PyAny>>,
    callbacks: Callbacks,
}

/// Callbacks in the order in which they were added. There is seldom more than one.
///
/// They stay when they have been called, as in the standard library. They move into a list when
/// somebody asks for `_done_callbacks`, and that list is what counts from then on.
#[derive(Default)]
struct Callbacks {
    first: Option<Py<PyAny>>,
    others: Vec<Py<PyAny>>,
    /// A list, unless somebody has put something else there.
    list: Option<Py<PyAny>>,
}

impl Callbacks {
    fn push(&mut self, callback: Py<PyAny>) {
        if self.first.is_none() {
            self.first = Some(callback);
        } else {
            self.others.push(callback);
        }
    }

    fn iter(&self) -> impl Iterator<Item = &Py<PyAny>> {
        self.first.iter().chain(&self.others)
    }
}

/// What the standard library's waiters are told.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Result,
    Exception,
    Cancelled,
    /// Nothing yet: that a future is cancelled, they are told by its executor.
    Withheld,
}

impl Observers {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The condition, if somebody has asked for it.
    pub(crate) fn existing_condition<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let parts = self.lock();
        parts
            .condition
            .as_ref()
            .map(|condition| condition.bind(py).clone())
    }

    pub(crate) fn condition<'py>(
        &self,
        future: &Bound<'py, Future>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        if let Some(condition) = self.existing_condition(py) {
            return Ok(condition);
        }
        let mut new = Some(stdlib::condition(py)?.call0()?.unbind());
        let condition = {
            let mut parts = self.lock();
            if parts.condition.is_none() {
                parts.condition = new.take();
            }
            parts
                .condition
                .as_ref()
                .map(|condition| condition.bind(py).clone())
        };
        // If another thread was first, ours goes now, without the lock: Python code may run.
        drop(new);
        // If it is done, nothing can change any more.
        // SAFETY: it is observed from now on.
        unsafe { future.get().state().flag() };
        condition.ok_or_else(|| PyRuntimeError::new_err("the future was cleared"))
    }

    /// The list of those who wait in the way of the standard library.
    pub(crate) fn waiters<'py>(&self, future: &Bound<'py, Future>) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        self.condition(future)?;
        let new = PyList::empty(py).into_any();
        let waiters = {
            let mut parts = self.lock();
            let waiters = parts.waiters.get_or_insert_with(|| new.clone().unbind());
            waiters.bind(py).clone()
        };
        Ok(waiters)
    }

    pub(crate) fn replace_waiters(
        &self,
        future: &Bound<'_, Future>,
        waiters: Bound<'_, PyAny>,
    ) -> PyResult<()> {
        self.condition(future)?;
        let former = self.lock().waiters.replace(waiters.unbind());
        drop(former);
        Ok(())
    }

    pub(crate) fn replace_condition(
        &self,
        future: &Bound<'_, Future>,
        condition: Bound<'_, PyAny>,
    ) {
        let former = self.lock().condition.replace(condition.unbind());
        drop(former);
        // SAFETY: it is observed from now on.
        unsafe { future.get().state().flag() };
    }

    /// Adds a callback. Gives it back if the future is done.
    pub(crate) fn add_callback<'py>(
        &self,
        future: &Bound<'py, Future>,
        callback: Bound<'py, PyAny>,
    ) -> PyResult<Result<(), Bound<'py, PyAny>>> {
        let py = future.py();
        let state = future.get().state();
        // SAFETY: it is observed from now on.
        if !unsafe { state.flag() } {
            return Ok(Err(callback));
        }
        let mut parts = self.lock();
        if state.is_done() {
            return Ok(Err(callback));
        }
        let Some(list) = &parts.callbacks.list else {
            parts.callbacks.push(callback.unbind());
            return Ok(Ok(()));
        };
        if let Ok(list) = list.bind(py).cast_exact::<PyList>() {
            // No Python code runs for it.
            list.append(callback)?;
            return Ok(Ok(()));
        }
        let list = list.bind(py).clone();
        drop(parts);
        let held = Held::acquire(self.condition(future)?)?;
        if state.is_done() {
            held.release()?;
            return Ok(Err(callback));
        }
        let appended = list.call_method1(name::append(py), (callback,));
        held.release()?;
        appended.map(|_| Ok(()))
    }

    /// The list of callbacks.
    pub(crate) fn callbacks<'py>(
        &self,
        future: &Bound<'py, Future>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        loop {
            let callbacks: Vec<_> = {
                let parts = self.lock();
                if let Some(list) = &parts.callbacks.list {
                    return Ok(list.bind(py).clone());
                }
                let callbacks = parts.callbacks.iter();
                callbacks.map(|callback| callback.clone_ref(py)).collect()
            };
            // Without the lock: the garbage collector may run.
            let new = PyList::new(py, &callbacks)?.into_any();
            let mut parts = self.lock();
            let is_all = parts.callbacks.iter().count() == callbacks.len();
            if parts.callbacks.list.is_none() && is_all {
                let list = Some(new.clone().unbind());
                let former = mem::replace(
                    &mut parts.callbacks,
                    Callbacks {
                        list,
                        ..Callbacks::default()
                    },
                );
                self.has_list.store(true, Ordering::Relaxed);
                drop(parts);
                drop(former);
                // SAFETY: it is observed from now on.
                unsafe { future.get().state().flag() };
                return Ok(new);
            }
        }
    }

    pub(crate) fn replace_callbacks(&self, future: &Bound<'_, Future>, list: Bound<'_, PyAny>) {
        let list = Some(list.unbind());
        let new = Callbacks {
            list,
            ..Callbacks::default()
        };
        let former = mem::replace(&mut self.lock().callbacks, new);
        self.has_list.store(true, Ordering::Relaxed);
        drop(former);
        // SAFETY: it is observed from now on.
        unsafe { future.get().state().flag() };
    }

    /// Whether there may be callbacks.
    pub(crate) fn has_callbacks(&self) -> bool {
        let parts = self.lock();
        parts.callbacks.first.is_some() || parts.callbacks.list.is_some()
    }

    /// The callback at this place, and whether it was the last; none if there are no more.
    fn callback<'py>(&self, py: Python<'py>, place: usize) -> Option<(Bound<'py, PyAny>, bool)> {
        let parts = self.lock();
        let callbacks = &parts.callbacks;
        if let Some(list) = &callbacks.list {
            let list = list.bind(py).cast_exact::<PyList>().ok()?;
            return Some((list.get_item(place).ok()?, false));
        }
        let callback = match place {
            0 => callbacks.first.as_ref()?,
            place => callbacks.others.get(place - 1)?,
        };
        let is_last = place == callbacks.others.len();
        Some((callback.bind(py).clone(), is_last))
    }

    /// Returns the object in the place of the list of callbacks, if it is no list.
    fn other_callbacks<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let parts = self.lock();
        let list = parts.callbacks.list.as_ref()?.bind(py);
        (!list.is_exact_instance_of::<PyList>()).then(|| list.clone())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let parts = match self.parts.try_lock() {
            Ok(parts) => parts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A thread is in the middle of a change: then the future is in use.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        visit.call(&parts.condition)?;
        visit.call(&parts.waiters)?;
        visit.call(&parts.callbacks.list)?;
        parts
            .callbacks
            .iter()
            .try_for_each(|callback| visit.call(callback))
    }

    pub(crate) fn clear(&self) {
        let parts = mem::take(&mut *self.lock());
        drop(parts);
    }
}

/// Makes a future go from one of the phases `from` to `to`, in which it is done, and tells
/// the standard library's waiters; callbacks are still to be called if true is returned.
///
/// # Errors
/// What came while the calling thread waited for the condition (`KeyboardInterrupt`); the
/// future is done nevertheless.
///
/// # Safety
/// As for `State::advance`.
pub(crate) unsafe fn advance(
    future: &Bound<'_, Future>,
    from: &[Phase],
    to: Phase,
    event: Event,
) -> (Advance, bool, PyResult<()>) {
    let this = future.get();
    let state = this.state();
    // SAFETY: promised by the caller.
    let advance = unsafe { state.advance(from, to, false) };
    let (Advance::Flagged, Some(observers)) = (advance, this.observers()) else {
        return (advance, false, Ok(()));
    };
    let condition = {
        let parts = observers.lock();
        let Some(condition) = &parts.condition else {
            // SAFETY: promised by the caller.
            let advance = unsafe { state.advance(from, to, true) };
            return (advance, true, Ok(()));
        };
        condition.bind(future.py()).clone()
    };
    let held = Held::acquire(condition);
    // SAFETY: promised by the caller.
    let advance = unsafe { state.advance(from, to, true) };
    if advance == Advance::Done {
        tell(future, observers, event);
    }
    match held {
        Ok(held) => {
            let notified = match advance {
                Advance::Done => held.notify_all(),
                _ => Ok(()),
            };
            (advance, true, held.release().and(notified))
        }
        Err(error) => (advance, true, Err(error)),
    }
}

/// Tells the standard library's waiters.
fn tell(future: &Bound<'_, Future>, observers: &Observers, event: Event) {
    let py = future.py();
    let method = match event {
        Event::Result => name::add_result(py),
        Event::Exception => name::add_exception(py),
        Event::Cancelled => name::add_cancelled(py),
        Event::Withheld => return,
    };
    let waiters = observers
        .lock()
        .waiters
        .as_ref()
        .map(|waiters| waiters.bind(py).clone());
    let Some(waiters) = waiters else {
        return;
    };
    let told = waiters.try_iter().and_then(|waiters| {
        for waiter in waiters {
            let waiter = waiter?;
            if let Err(error) = waiter.call_method1(method, (future,)) {
                cannot_be_told(error, py, Some(&waiter));
            }
        }
        Ok(())
    });
    if let Err(error) = told {
        cannot_be_told(error, py, Some(&waiters));
    }
}

/// A condition that the calling thread holds.
pub(crate) struct Held<'py>(Bound<'py, PyAny>);

impl<'py> Held<'py> {
    pub(crate) fn acquire(condition: Bound<'py, PyAny>) -> PyResult<Self> {
        let _on_the_way = stay(condition.py());
        condition.call_method0(name::acquire(condition.py()))?;
        Ok(Self(condition))
    }

    pub(crate) fn notify_all(&self) -> PyResult<()> {
        self.0.call_method0(name::notify_all(self.0.py())).map(drop)
    }

    pub(crate) fn release(self) -> PyResult<()> {
        self.0.call_method0(name::release(self.0.py())).map(drop)
    }
}

thread_local! {
    /// How many calls of `call_callbacks` the thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// Futures whose callbacks the outer of these calls will call.
    static POSTPONED: RefCell<VecDeque<Py<Future>>> = const { RefCell::new(VecDeque::new()) };
}

/// How deep callbacks that finish other futures may go. Beyond, callbacks wait until those
/// they are called from have returned: a chain of any length needs a stack of this depth.
const MAX_DEPTH: usize = 50;

/// Calls the callbacks of a future that has just been made done. One that is not plain does it in
/// its own way.
pub(crate) fn call_callbacks(future: &Bound<'_, Future>) -> PyResult<()> {
    if plain::is_plain(future) {
        return invoke_callbacks(future);
    }
    let invoked = future.call_method0(name::invoke_callbacks(future.py()));
    invoked.map(drop)
}

/// Calls the callbacks of a future. Those that fail are logged. Returns the first exception that is
/// more than a failure, if there was one.
pub(crate) fn invoke_callbacks(future: &Bound<'_, Future>) -> PyResult<()> {
    if future.get().observers().is_none() {
        return Ok(());
    }
    let depth = DEPTH.get();
    if depth >= MAX_DEPTH {
        POSTPONED.with_borrow_mut(|postponed| postponed.push_back(future.clone().unbind()));
        return Ok(());
    }
    DEPTH.set(depth + 1);
    let mut first = call_all(future);
    if depth + 1 == MAX_DEPTH {
        let next = || POSTPONED.with_borrow_mut(VecDeque::pop_front);
        while let Some(postponed) = next() {
            first = first.and(call_all(postponed.bind(future.py())));
        }
    }
    DEPTH.set(depth);
    first
}

fn call_all(future: &Bound<'_, Future>) -> PyResult<()> {
    let Some(observers) = future.get().observers() else {
        return Ok(());
    };
    let py = future.py();
    let mut first = Ok(());
    let mut place = 0;
    while let Some((callback, is_last)) = observers.callback(py, place) {
        first = first.and(call(future, &callback));
        // ORDERING: Relaxed: of interest is what the callback itself has done to the list.
        if is_last && !observers.has_list.load(Ordering::Relaxed) {
            return first;
        }
        place += 1;
    }
    let Some(others) = observers.other_callbacks(py) else {
        return first;
    };
    for callback in others.try_iter()? {
        first = first.and(call(future, &callback?));
    }
    first
}

/// Calls a callback; logs its failure.
pub(crate) fn call(future: &Bound<'_, Future>, callback: &Bound<'_, PyAny>) -> PyResult<()> {
    let Err(error) = callback.call1((future,)) else {
        return Ok(());
    };
    let message = name::exception_in_callback(future.py());
    stdlib::log_failure(error, message, future.as_any()).map_or(Ok(()), Err)
}
