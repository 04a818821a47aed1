//! Objects that the package registers with the native module at each import.
//!
//! A program may import the package more than once: by `importlib.reload`, or after removing modules from
//! `sys.modules`. The native module stays the same, and uses the objects that were registered last.

use std::ptr;
use std::sync::atomic::{AtomicPtr, Ordering};

/// A value that may be replaced. Replaced values are never freed, as other threads may be using
/// them; a program imports the package few times.
pub(crate) struct Replaceable<T: 'static>(AtomicPtr<T>);

impl<T> Replaceable<T> {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    pub(crate) fn get(&self) -> Option<&'static T> {
        // ORDERING: Acquire pairs with the Release of `set`.
        // SAFETY: null, or a value that is never freed.
        unsafe { self.0.load(Ordering::Acquire).as_ref() }
    }

    pub(crate) fn set(&self, value: T) -> &'static T {
        let value = Box::into_raw(Box::new(value));
        // ORDERING: Release; see `get`.
        self.0.store(value, Ordering::Release);
        // SAFETY: made just now, and never freed.
        unsafe { &*value }
    }
}
