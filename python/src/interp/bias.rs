//! Objects that one thread makes and another thread gives up, on free-threaded builds.
//!
//! There, an object's count of references is in two parts. Its *owner*, the thread that made the object, counts in
//! the first part without atomic operations. All other threads count in the second. Another thread may give up a
//! reference that the owner has counted. Then the interpreter puts the object into a queue of the owner, under a lock.
//! It interrupts the owner, which *merges* the parts. A pool would do that for each task: its future, its arguments
//! and its result go from one thread to another. So the owner merges the parts before it hands an object on. From
//! then on all threads count atomically.
//!
//! # Protocol
//! The steps are those of the interpreter's own function for it (`_Py_ExplicitMergeRefcount`), which is not exported.
//!
//! # Invariants
//! 1. Only the owner writes the local count and the owner's word. A thread that finds its own word there is therefore
//!    alone in changing them.
//! 2. The owner's word is cleared before the parts are merged. So a thread that sees a merged count sees no owner.

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The longest call whose arguments are looked at one by one.
#[cfg(Py_GIL_DISABLED)]
const MOST: usize = 8;

/// Merges the counts of references of an object, if the calling thread owns the object.
#[inline]
pub(crate) fn unbias(object: &Bound<'_, PyAny>) {
    #[cfg(Py_GIL_DISABLED)]
    free::merge(object);
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = object;
}

/// Merges the counts of references of a tuple and of its items, as far as the calling thread owns them.
#[inline]
pub(crate) fn unbias_all(arguments: &Bound<'_, PyTuple>) {
    #[cfg(Py_GIL_DISABLED)]
    {
        free::merge(arguments.as_any());
        if arguments.len() <= MOST {
            for argument in arguments.iter_borrowed() {
                free::merge(&argument);
            }
        }
    }
    #[cfg(not(Py_GIL_DISABLED))]
    let _ = arguments;
}

#[cfg(Py_GIL_DISABLED)]
mod free {
    use pyo3::ffi;
    use pyo3::prelude::*;
    use pyo3::types::PyList;
    use std::cell::Cell;
    use std::ptr;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// The local count of immortal objects.
    const IMMORTAL: u32 = u32::MAX;
    /// The bits of the shared count below the number, and their value when the counts are merged.
    const FLAGS: u32 = 2;
    const MERGED: isize = 3;

    thread_local! {
        /// The word by which the interpreter names the calling thread as an owner; 0 before it is known.
        static OWNER: Cell<usize> = const { Cell::new(0) };
    }

    /// Returns the word by which the interpreter names the calling thread as an owner: that of a new object.
    fn calling_thread(py: Python<'_>) -> usize {
        OWNER.with(|owner| {
            if owner.get() == 0 {
                owner.set(owner_of(PyList::empty(py).as_ptr()).load(Ordering::Relaxed));
            }
            owner.get()
        })
    }

    fn owner_of<'a>(object: *mut ffi::PyObject) -> &'a AtomicUsize {
        // SAFETY: the caller has a reference to the object. The interpreter accesses the word atomically, too.
        unsafe { AtomicUsize::from_ptr(&raw mut (*object).ob_tid) }
    }

    #[inline]
    pub(super) fn merge(object: &Bound<'_, PyAny>) {
        let (py, object) = (object.py(), object.as_ptr());
        // SAFETY: the caller has a reference to the object.
        let (local, shared) = unsafe {
            (
                &*ptr::from_ref(&(*object).ob_ref_local),
                &*ptr::from_ref(&(*object).ob_ref_shared),
            )
        };
        let owner = owner_of(object);
        // ORDERING: Relaxed, as in the interpreter: the words tell of nothing else, and the owner is this thread.
        let count = local.load(Ordering::Relaxed);
        if count == IMMORTAL || owner.load(Ordering::Relaxed) != calling_thread(py) {
            return;
        }
        local.store(0, Ordering::Relaxed);
        owner.store(0, Ordering::Relaxed);
        let Ok(count) = isize::try_from(count) else {
            unreachable!("32 bits fit into a word");
        };
        let merged = |shared: isize| (((shared >> FLAGS) + count) << FLAGS) | MERGED;
        // ORDERING: SeqCst, as in the interpreter.
        let mut now = shared.load(Ordering::Relaxed);
        while let Err(other) =
            shared.compare_exchange_weak(now, merged(now), Ordering::SeqCst, Ordering::Relaxed)
        {
            now = other;
        }
    }
}
