//! What one attached thread at a time may use, for as long as it likes.

use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use std::cell::UnsafeCell;
use std::ops::{Deref, DerefMut};
use std::sync::atomic::{AtomicBool, Ordering};

/// A value in a Python object that several threads may use, one at a time. The others are refused.
///
/// It is taken in a critical section of the object, which costs nothing where there is a global
/// interpreter lock; a mutex would take longer than most of what iterators do. Python code may run,
/// and the thread may detach, while it is taken.
pub(crate) struct Exclusive<T> {
    is_taken: AtomicBool,
    value: UnsafeCell<T>,
}

// SAFETY: whoever uses the value has taken it, and is the only one.
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

    /// Takes the value; none if somebody else has it, or the caller. It is in `owner`.
    pub(crate) fn take(&self, owner: &Bound<'_, PyAny>) -> Option<Taken<'_, T>> {
        with_critical_section(owner, || {
            // ORDERING: Acquire pairs with the Release of who had it before. Nobody else is between
            // the two steps: a critical section is for one thread at a time.
            if self.is_taken.load(Ordering::Acquire) {
                return None;
            }
            self.is_taken.store(true, Ordering::Relaxed);
            Some(Taken(self))
        })
    }

    /// Looks at the value, if nobody has it.
    ///
    /// # Safety
    /// For `__traverse__`, while which no other thread runs Python code or takes anything.
    pub(crate) unsafe fn look(&self) -> Option<&T> {
        let is_taken = self.is_taken.load(Ordering::Acquire);
        // SAFETY: nobody has it, and nobody takes it meanwhile.
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
