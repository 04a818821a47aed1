//! Python code that observes a future: its condition, the standard library's waiters, and callbacks.
//!
//! # Protocol
//! Most futures have no observers: they are finished by one compare-exchange. The first use of `_condition`,
//! `_waiters` or `add_done_callback` makes the observers and *flags* the state. From then on, the thread that
//! makes the future done also handles the observers.
//!
//! 1. If there is a condition, a future becomes done only while the condition is held. The standard library's
//!    `wait` and `as_completed` hold the condition while they look at the state and add their waiter. So they
//!    see the future as not done, and their waiter is notified; or they see the future as done.
//! 2. A condition is put here before the state is flagged. A thread may find the state flagged but no
//!    condition. It makes the future done under our lock, which a thread must take to put a condition here.
//! 3. A callback is added under our lock if the future is not done. After the future is done, the callbacks are
//!    looked at under the lock. So each callback runs once: in the thread that finished the future, or in the
//!    thread that came too late to add it.
//! 4. The callbacks stay where they are after they were called. If a program has asked for `_done_callbacks`,
//!    they are in that list, which is read as it is at that moment. A critical section of the list takes the
//!    place of our lock in step 3 then.
//!
//! # Invariants
//! 1. Nothing that may detach happens under our lock: no Python code, no critical section, and no reference is
//!    given up. So an attached thread may wait for the lock.

use crate::future::object::Future;
use crate::future::plain;
use crate::interp::attach::stay;
use crate::interp::signals::cannot_be_told;
use crate::interp::{interned, stdlib};
use concurrent_futures::engine::{Advance, Phase};
use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::types::PyList;
use pyo3::{PyTraverseError, PyVisit};
use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::mem;
use std::sync::{Mutex, MutexGuard, PoisonError, TryLockError};

/// The observers of a future. Each future has one of these, so that its size counts.
#[derive(Default)]
pub(crate) struct Observers(Mutex<Parts>);

#[derive(Default)]
struct Parts {
    condition: Option<Py<PyAny>>,
    /// The list of waiters, unless a program has put another object there.
    waiters: Option<Py<PyAny>>,
    callbacks: Callbacks,
}

/// Callbacks in the order in which they were added. There is seldom more than one.
///
/// They stay when they have been called, as in the standard library. They move into a list when a program
/// asks for `_done_callbacks`. From then on, that list counts.
enum Callbacks {
    Own(Own),
    /// The list of callbacks, unless a program has put another object there.
    List(Py<PyAny>),
}

#[derive(Default)]
struct Own {
    first: Option<Py<PyAny>>,
    others: Vec<Py<PyAny>>,
}

impl Default for Callbacks {
    fn default() -> Self {
        Self::Own(Own::default())
    }
}

impl Own {
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

/// The event that the standard library's waiters are told of.
#[derive(Clone, Copy)]
pub(crate) enum Event {
    Result,
    Exception,
    Cancelled,
    /// No event yet: waiters learn of a cancellation from the future's executor.
    Withheld,
}

impl Observers {
    fn lock(&self) -> MutexGuard<'_, Parts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the condition, if a program has asked for it.
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

    /// Returns the list of the standard library's waiters.
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

    /// Adds a callback. Gives the callback back if the future is done.
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
        let list = match &mut parts.callbacks {
            Callbacks::Own(own) => {
                own.push(callback.unbind());
                return Ok(Ok(()));
            }
            Callbacks::List(list) => list.bind(py).clone(),
        };
        drop(parts);
        if let Ok(list) = list.cast_exact::<PyList>() {
            // The thread that finishes the future reads the list in a critical section: either it finds the
            // callback, or we find the future done.
            return with_critical_section(list.as_any(), || {
                if state.is_done() {
                    return Ok(Err(callback));
                }
                list.append(callback).map(Ok)
            });
        }
        let held = Held::acquire(self.condition(future)?)?;
        if state.is_done() {
            held.release()?;
            return Ok(Err(callback));
        }
        let appended = list.call_method1(interned::append(py), (callback,));
        held.release()?;
        appended.map(|_| Ok(()))
    }

    /// Returns the list of callbacks.
    pub(crate) fn callbacks<'py>(
        &self,
        future: &Bound<'py, Future>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = future.py();
        loop {
            let callbacks: Vec<_> = {
                let parts = self.lock();
                match &parts.callbacks {
                    Callbacks::List(list) => return Ok(list.bind(py).clone()),
                    Callbacks::Own(own) => own.iter().map(|each| each.clone_ref(py)).collect(),
                }
            };
            // Without the lock: the garbage collector may run.
            let new = PyList::new(py, &callbacks)?.into_any();
            let mut parts = self.lock();
            if let Callbacks::Own(own) = &parts.callbacks
                && own.iter().count() == callbacks.len()
            {
                let list = Callbacks::List(new.clone().unbind());
                let former = mem::replace(&mut parts.callbacks, list);
                future.get().note_list();
                drop(parts);
                drop(former);
                // SAFETY: it is observed from now on.
                unsafe { future.get().state().flag() };
                return Ok(new);
            }
        }
    }

    pub(crate) fn replace_callbacks(&self, future: &Bound<'_, Future>, list: Bound<'_, PyAny>) {
        let list = Callbacks::List(list.unbind());
        let former = mem::replace(&mut self.lock().callbacks, list);
        future.get().note_list();
        drop(former);
        // SAFETY: it is observed from now on.
        unsafe { future.get().state().flag() };
    }

    /// Returns whether there may be callbacks.
    pub(crate) fn has_callbacks(&self) -> bool {
        match &self.lock().callbacks {
            Callbacks::Own(own) => own.first.is_some(),
            Callbacks::List(_) => true,
        }
    }

    /// Returns the callback at this place, and whether it was the last; none if there are no more.
    fn callback<'py>(&self, py: Python<'py>, place: usize) -> Option<(Bound<'py, PyAny>, bool)> {
        let parts = self.lock();
        let own = match &parts.callbacks {
            Callbacks::Own(own) => own,
            Callbacks::List(list) => {
                let list = list.bind(py).clone();
                drop(parts);
                let list = list.cast_exact::<PyList>().ok()?;
                let callback = with_critical_section(list.as_any(), || list.get_item(place));
                return Some((callback.ok()?, false));
            }
        };
        let callback = match place {
            0 => own.first.as_ref()?,
            place => own.others.get(place - 1)?,
        };
        let is_last = place == own.others.len();
        Some((callback.bind(py).clone(), is_last))
    }

    /// Returns the object in the place of the list of callbacks, if it is no list.
    fn other_callbacks<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let parts = self.lock();
        let Callbacks::List(list) = &parts.callbacks else {
            return None;
        };
        let list = list.bind(py);
        (!list.is_exact_instance_of::<PyList>()).then(|| list.clone())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let parts = match self.0.try_lock() {
            Ok(parts) => parts,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            // A thread is in the middle of a change: then the future is in use.
            Err(TryLockError::WouldBlock) => return Ok(()),
        };
        visit.call(&parts.condition)?;
        visit.call(&parts.waiters)?;
        match &parts.callbacks {
            Callbacks::Own(own) => own.iter().try_for_each(|callback| visit.call(callback)),
            Callbacks::List(list) => visit.call(list),
        }
    }

    /// Takes all observers out of a future that is being dropped.
    pub(super) fn take(&mut self) -> impl Any + use<> {
        mem::take(self.0.get_mut().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn clear(&self) {
        let parts = mem::take(&mut *self.lock());
        drop(parts);
    }
}

/// The number of attempts to acquire a condition. Each fails if a handler of a signal raises an exception meanwhile.
const ATTEMPTS: u32 = 10;

/// Acquires a condition for a change that has to be made. Returns the first exception that came meanwhile, too.
fn acquire_despite_signals<'py>(
    condition: &Bound<'py, PyAny>,
) -> (Option<Held<'py>>, PyResult<()>) {
    let mut first = Ok(());
    for _ in 0..ATTEMPTS {
        match Held::acquire(condition.clone()) {
            Ok(held) => return (Some(held), first),
            Err(error) => first = first.and(Err(error)),
        }
    }
    // No condition, but another object, which a program has put there.
    (None, first)
}

/// Acquires the condition of a future, if a program has asked for the condition: for a change that a program makes.
///
/// # Errors
/// The exception that came while the calling thread waited (`KeyboardInterrupt`). As in the standard library, the
/// change is not made then.
pub(crate) fn hold<'py>(future: &Bound<'py, Future>) -> PyResult<Option<Held<'py>>> {
    let observers = future.get().observers();
    let condition = observers.and_then(|observers| observers.existing_condition(future.py()));
    condition.map(Held::acquire).transpose()
}

/// Moves a future from one of the phases `from` to `to`, in which it is done, and notifies the standard
/// library's waiters. Returns true if callbacks are still to be called. The condition is `held` by the caller, or
/// acquired if there is one.
///
/// # Errors
/// The exception that came while the calling thread waited for the condition (`KeyboardInterrupt`); the
/// future is done nevertheless.
///
/// # Safety
/// As for `State::advance`.
pub(crate) unsafe fn advance(
    future: &Bound<'_, Future>,
    from: &[Phase],
    to: Phase,
    event: Event,
    held: Option<Held<'_>>,
) -> (Advance, bool, PyResult<()>) {
    let this = future.get();
    let state = this.state();
    let advance = match held {
        Some(_) => Advance::Flagged,
        // SAFETY: the caller may move the future from `from` to `to`, by the condition of `State::advance`.
        None => unsafe { state.advance(from, to, false) },
    };
    let (Advance::Flagged, Some(observers)) = (advance, this.observers()) else {
        return (advance, false, Ok(()));
    };
    let (held, waited) = if held.is_some() {
        (held, Ok(()))
    } else {
        let condition = {
            let parts = observers.lock();
            let Some(condition) = &parts.condition else {
                // SAFETY: the caller may move the future from `from` to `to`, by the condition of
                // `State::advance`.
                let advance = unsafe { state.advance(from, to, true) };
                return (advance, true, Ok(()));
            };
            condition.bind(future.py()).clone()
        };
        acquire_despite_signals(&condition)
    };
    // SAFETY: the caller may move the future from `from` to `to`, by the condition of `State::advance`.
    let advance = unsafe { state.advance(from, to, true) };
    if advance == Advance::Done {
        tell(future, observers, event);
    }
    let Some(held) = held else {
        return (advance, true, waited);
    };
    let notified = match advance {
        Advance::Done => held.notify_all(),
        _ => Ok(()),
    };
    (advance, true, waited.and(held.release()).and(notified))
}

/// Notifies the standard library's waiters.
fn tell(future: &Bound<'_, Future>, observers: &Observers, event: Event) {
    let py = future.py();
    let method = match event {
        Event::Result => interned::add_result(py),
        Event::Exception => interned::add_exception(py),
        Event::Cancelled => interned::add_cancelled(py),
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
        condition.call_method0(interned::acquire(condition.py()))?;
        Ok(Self(condition))
    }

    pub(crate) fn notify_all(&self) -> PyResult<()> {
        self.0
            .call_method0(interned::notify_all(self.0.py()))
            .map(drop)
    }

    pub(crate) fn release(self) -> PyResult<()> {
        self.0
            .call_method0(interned::release(self.0.py()))
            .map(drop)
    }
}

thread_local! {
    /// The number of calls of `call_callbacks` that the thread is in.
    static DEPTH: Cell<usize> = const { Cell::new(0) };
    /// The futures whose callbacks the outer of these calls will call.
    static POSTPONED: RefCell<VecDeque<Py<Future>>> = const { RefCell::new(VecDeque::new()) };
}

/// The depth of callbacks that finish other futures. Beyond it, callbacks wait until those they are called
/// from have returned: a chain of any length needs a stack of this depth.
const MAX_DEPTH: usize = 50;

/// Calls the callbacks of a future that has just been made done. A future that is not plain calls them by its
/// own method.
pub(crate) fn call_callbacks(future: &Bound<'_, Future>) -> PyResult<()> {
    if plain::is_plain(future) {
        return invoke_callbacks(future);
    }
    let invoked = future.call_method0(interned::invoke_callbacks(future.py()));
    invoked.map(drop)
}

/// Calls the callbacks of a future, and logs their failures. Returns the first exception that is more than a
/// failure, if there was one.
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
        // The callback itself may have asked for the list.
        if is_last && !future.get().has_list() {
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
    let message = interned::exception_in_callback(future.py());
    stdlib::log_failure(error, message, future.as_any()).map_or(Ok(()), Err)
}
