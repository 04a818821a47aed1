//! The functions that threads call at the moment: dumps name tasks by them.
//!
//! # Protocol
//! Each thread that calls a task has a slot, in which it keeps the address of the function. The address is there only while
//! the thread has a reference to the function. A thread that makes a dump turns addresses into references: with the
//! interpreter lock, no other thread changes a slot meanwhile. Without that lock, the dump marks the address. The owner
//! of a slot changes an address only when it has no mark.

#[cfg(unix)]
use crate::interp::fork::kept_across_forks;
use crate::recording::names;
use pyo3::ffi;
use pyo3::prelude::*;
use std::ffi::c_ulong;
use std::marker::PhantomData;
use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The place of the function that a thread calls.
struct Slot {
    /// The number of the thread in `threading`.
    thread: c_ulong,
    function: AtomicPtr<ffi::PyObject>,
}

/// The slots of all threads that have called a task.
type Slots = Vec<Arc<Slot>>;

static SLOTS: Mutex<Slots> = Mutex::new(Vec::new());

fn slots() -> MutexGuard<'static, Slots> {
    SLOTS.lock().unwrap_or_else(PoisonError::into_inner)
}

// Other threads than the one that forks are not in the child. A new one may have the number of one of them.
#[cfg(unix)]
kept_across_forks!(slots(), Slots, |slots| {
    // SAFETY: the function takes nothing.
    let own = unsafe { ffi::PyThread_get_thread_ident() };
    slots.retain(|slot| slot.thread == own);
});

/// The slot of a thread, which the thread's end removes.
struct Own(Arc<Slot>);

impl Own {
    fn register() -> Self {
        // SAFETY: the function takes nothing.
        let thread = unsafe { ffi::PyThread_get_thread_ident() };
        let slot = Arc::new(Slot {
            thread,
            function: AtomicPtr::new(ptr::null_mut()),
        });
        slots().push(Arc::clone(&slot));
        Self(slot)
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        slots().retain(|slot| !Arc::ptr_eq(slot, &self.0));
    }
}

thread_local! {
    static OWN: Own = Own::register();
}

impl Slot {
    /// Sets the function, and returns the former one.
    fn replace(&self, function: *mut ffi::PyObject) -> *mut ffi::PyObject {
        if !cfg!(Py_GIL_DISABLED) {
            let former = self.function.load(Ordering::Relaxed);
            self.function.store(function, Ordering::Relaxed);
            return former;
        }
        if self.function.load(Ordering::Relaxed).is_null() {
            // Dumps mark functions only, so that no other thread writes the word.
            // ORDERING: Release: a dump that finds the function finds it made.
            self.function.store(function, Ordering::Release);
            return ptr::null_mut();
        }
        loop {
            let former = unmarked(self.function.load(Ordering::Relaxed));
            let replaced = self.function.compare_exchange_weak(
                former,
                function,
                Ordering::AcqRel,
                Ordering::Relaxed,
            );
            if replaced.is_ok() {
                return former;
            }
            std::hint::spin_loop();
        }
    }

    /// Returns the function, if there is one.
    fn get<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        let function = unmarked(self.function.load(Ordering::Relaxed));
        if function.is_null() {
            return None;
        }
        if !cfg!(Py_GIL_DISABLED) {
            // SAFETY: attached; the thread of the slot has a reference until it is attached again.
            return Some(unsafe { Bound::from_borrowed_ptr(py, function) });
        }
        let marked = function.map_addr(|address| address | 1);
        self.function
            .compare_exchange(function, marked, Ordering::Acquire, Ordering::Relaxed)
            .ok()?;
        // SAFETY: attached; the thread of the slot keeps its reference as long as the mark is there.
        let found = unsafe { Bound::from_borrowed_ptr(py, function) };
        self.function.store(function, Ordering::Release);
        Some(found)
    }
}

/// Returns an address without the mark of a dump. Objects have even addresses.
fn unmarked(function: *mut ffi::PyObject) -> *mut ffi::PyObject {
    function.map_addr(|address| address & !1)
}

/// A call of a function by the calling thread, whose reference outlives the call.
pub(crate) struct Running<'a> {
    former: *mut ffi::PyObject,
    function: PhantomData<&'a ()>,
}

impl<'a> Running<'a> {
    /// Notes that the calling thread calls a function.
    pub(crate) fn enter(function: &'a Bound<'_, PyAny>) -> Self {
        let function = function.as_ptr();
        Self {
            // A thread that is ending has no slot.
            former: OWN
                .try_with(|own| own.0.replace(function))
                .unwrap_or(ptr::null_mut()),
            function: PhantomData,
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        // A thread that is ending has no slot.
        let _ = OWN.try_with(|own| own.0.replace(self.former));
    }
}

/// Returns the names of the functions that threads call as tasks, with the numbers of the threads.
#[pyfunction]
pub(crate) fn running_calls(py: Python<'_>) -> Vec<(c_ulong, String)> {
    let found: Vec<_> = {
        let slots = slots();
        let functions = slots.iter().map(|slot| (slot.thread, slot.get(py)));
        functions
            .filter_map(|(thread, function)| Some((thread, function?)))
            .collect()
    };
    found
        .iter()
        .map(|(thread, function)| (*thread, names::text_of_callee(function)))
        .collect()
}
