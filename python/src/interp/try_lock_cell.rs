//! A value that one attached thread at a time may use, for as long as it likes.

use pyo3::prelude::*;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A value in a Python object that several threads may use, one at a time. Other threads are refused.
///
/// Python code may run, and the thread may detach, while it is taken. No thread ever waits for it. So a
/// thread that has it may do anything.
pub(crate) struct Exclusive<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: a thread that uses the value has taken it, and is the only one.
unsafe impl<T: Send> Sync for Exclusive<T> {}

/// Gives the value back when it is dropped.
pub(crate) struct Taken<'a, T>(&'a Exclusive<T>);

impl<T> Exclusive<T> {
    pub(crate) const fn new(value: T) -> Self {
        Self {
            is_taken: AtomicBool::new(false),
            value: UnsafeCell::new(value),
        }
    }

    /// Takes the value; none if another thread, or the caller, has it.
    pub(crate) fn take(&self, _: Python<'_>) -> Option<Taken<'_, T>> {
        // ORDERING: Acquire pairs with the Release of the previous owner.
        if cfg!(Py_GIL_DISABLED) {
            let was_taken = self.is_taken.swap(true, Ordering::Acquire);
            return (!was_taken).then(|| Taken(self));
        }
        // With an interpreter lock, no other attached thread is between the two steps. An exchange would take
        // longer than most of what iterators do.
        if self.is_taken.load(Ordering::Acquire) {
            return None;
        }
        self.is_taken.store(true, Ordering::Relaxed);
        Some(Taken(self))
    }

    /// Returns the value for reading, if no thread has taken it.
    ///
    /// # Safety
    /// For `__traverse__`, while which no other thread runs Python code or takes anything.
    pub(crate) unsafe fn look(&self) -> Option<&T> {
        let is_taken = self.is_taken.load(Ordering::Acquire);
        // SAFETY: no thread has the value, and none takes it meanwhile.
        (!is_taken).then(|| unsafe { &*self.value.get() })
    }

    pub(crate) fn get_mut(&mut self) -> &mut T {
        self.value.get_mut()
    }
}

impl<T> Deref for Taken<'_, T> {
    type Target = T;

    fn deref(&self) -> &T {
        // SAFETY: taken by us.
        unsafe { &*self.0.value.get() }
    }
}

impl<T> DerefMut for Taken<'_, T> {
    fn deref_mut(&mut self) -> &mut T {
        // SAFETY: taken by us.
        unsafe { &mut *self.0.value.get() }
    }
}

impl<T> Drop for Taken<'_, T> {
    fn drop(&mut self) {
        // ORDERING: Release; see `take`.
        self.0.is_taken.store(false, Ordering::Release);
    }
}
