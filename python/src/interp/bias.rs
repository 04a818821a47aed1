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
//! 3. The caller is attached. So the interpreter has not stopped all threads, and no garbage collector is at work on
//!    the words.
//!
//! # The rules of the interpreter
//! The words, their order, the flags, and that function are the same in CPython 3.13, 3.14 and 3.15. With newer
//! versions, this module does nothing (`build.rs`), until it is known that they keep these rules. The other users of
//! the words accept an object that its owner has merged:
//!
//! | user | reason |
//! |---|---|
//! | immortal objects | The local count says so, and they are left alone. |
//! | objects in a queue (`_Py_REF_QUEUED`) | The queue's reference is in the sum. The owner later takes it off a merged count. A thread that is about to queue the object finds no owner, and counts down. |
//! | weak references (`_Py_REF_MAYBE_WEAKREF`) | The flag says that the count may not be read without atomic operations. A merged count says the same. |
//! | deferred counts: functions, modules, classes | 3.13 adds 1 to the local count, and sets `_Py_REF_QUEUED`. Newer versions add a large number to the shared count. The sum keeps both, and the collector takes them off the sum. |
//! | counts of each thread, for classes and code | They are elsewhere, and not touched. |
//! | garbage collector | It merges counts itself. While it calls finalizers, garbage has the address of another object as its owner's word. That is no thread's word, so the object is left alone. |
//! | finalizers | The count begins anew for a finalizer, with its thread as the owner. If the finalizer hands its object on, the interpreter finds no owner after it, and counts down atomically. |
//! | dictionaries, lists, sets | Without an owner, each thread's first use marks them as shared, also that of the former owner. |
//! | objects that are reused if they have one reference | 3.14 and newer reuse objects of the calling thread only. 3.13 looks at the sum: all other threads have given the object up. |
//! | interned strings | A string whose count is merged may be made immortal by any thread. In 3.13 any other string may be, too. |
//! | ends of threads | A new thread with the word of an ended one owns the objects of that one. |

use pyo3::prelude::*;
use pyo3::types::PyTuple;

/// The longest call whose arguments are looked at one by one.
#[cfg(merges_counts)]
const MOST: usize = 8;

/// Merges the counts of references of an object, if the calling thread owns the object.
#[inline]
pub(crate) fn unbias(object: &Bound<'_, PyAny>) {
    #[cfg(merges_counts)]
    free::merge(object);
    #[cfg(not(merges_counts))]
    let _ = object;
}

/// Merges the counts of references of a tuple and of its items, as far as the calling thread owns them.
#[inline]
pub(crate) fn unbias_all(arguments: &Bound<'_, PyTuple>) {
    #[cfg(merges_counts)]
    {
        free::merge(arguments.as_any());
        if arguments.len() <= MOST {
            for argument in arguments.iter_borrowed() {
                free::merge(&argument);
            }
        }
    }
    #[cfg(not(merges_counts))]
    let _ = arguments;
}

#[cfg(merges_counts)]
mod free {
    use pyo3::ffi;
    use pyo3::prelude::*;
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

    /// Returns the word by which the interpreter names the calling thread as an owner: that of a new object. Returns 0,
    /// which names no thread, if there is no memory for that object.
    fn calling_thread(py: Python<'_>) -> usize {
        OWNER.with(|owner| {
            if owner.get() == 0 {
                // SAFETY: attached. The new reference, if any, is ours.
                let new = unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyList_New(0)) };
                owner.set(new.map_or(0, |new| owner_of(new.as_ptr()).load(Ordering::Relaxed)));
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
        let of = owner.load(Ordering::Relaxed);
        // An object without an owner has a merged count already.
        if count == IMMORTAL || of == 0 || of != calling_thread(py) {
            return;
        }
        // Such a number of references needs more memory than 32 bits address.
        let Ok(count) = isize::try_from(count) else {
            return;
        };
        local.store(0, Ordering::Relaxed);
        owner.store(0, Ordering::Relaxed);
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
