//! References to Python objects that are dropped later, by a thread that may run Python code.
//!
//! The engine gives up references in threads that are not attached, or that hold a lock. Process pools, for
//! example, move bytes without the interpreter, and so give up references to futures without it. An attached
//! thread that comes by drops them: a thread that submits, or a thread that has waited. If no such thread
//! comes for some time, the supervisor drops them.

use crate::interp::attach::attached;
#[cfg(unix)]
use crate::interp::fork::kept_across_forks;
use crate::interp::fork::may_handle_signals;
use crate::interp::signals::hold;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use std::ffi::{c_int, c_void};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// The time after which the supervisor drops the references, if no other thread has.
const PATIENCE: Duration = Duration::from_millis(20);

/// A future, of which one reference is to be dropped.
struct Released(NonNull<ffi::PyObject>);

// SAFETY: the reference is counted, and belongs to the owner of this value.
unsafe impl Send for Released {}

struct Pile {
    futures: Vec<Released>,
    others: Vec<Py<PyAny>>,
    /// The moment since when there are references.
    since: Option<Instant>,
}

static PILE: Mutex<Pile> = Mutex::new(Pile {
    futures: Vec::new(),
    others: Vec::new(),
    since: None,
});
/// Whether there are references, so that other threads need not look.
static ANY: AtomicBool = AtomicBool::new(false);

fn pile() -> MutexGuard<'static, Pile> {
    PILE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Gives up a reference to a future.
///
/// # Safety
/// The reference is the caller's, and the garbage collector may track the object again.
pub(crate) unsafe fn release(future: NonNull<ffi::PyObject>) {
    put(|pile| pile.futures.push(Released(future)));
}

/// Gives up a reference to an object of any kind, while a lock may be held.
pub(crate) fn release_object(object: Py<PyAny>) {
    put(|pile| pile.others.push(object));
}

fn put(onto: impl FnOnce(&mut Pile)) {
    let mut pile = pile();
    onto(&mut pile);
    pile.since.get_or_insert_with(Instant::now);
    // ORDERING: Relaxed: a hint. A thread that misses it comes by again.
    ANY.store(true, Ordering::Relaxed);
}

/// Drops the references that were given up. Python code may run.
pub(crate) fn drop_released(py: Python<'_>) {
    if !ANY.load(Ordering::Relaxed) {
        return;
    }
    let (futures, others) = {
        let mut pile = pile();
        ANY.store(false, Ordering::Relaxed);
        pile.since = None;
        (mem::take(&mut pile.futures), mem::take(&mut pile.others))
    };
    // An interrupt that a finalizer raises is lost.
    // SAFETY: the references are ours, by `release`.
    let runs_code = |Released(future): &Released| unsafe { may_run_code(py, *future) };
    let held = (may_handle_signals() && futures.iter().any(runs_code)).then(|| hold(py));
    drop(others);
    for Released(future) in futures {
        // SAFETY: the reference is ours, by `release`.
        unsafe { drop_reference(py, future) };
    }
    drop(held);
}

/// Returns whether no Python code runs when an object is freed: it is of a simple type.
///
/// # Safety
/// The calling thread is attached, and the object is alive.
pub(crate) unsafe fn has_no_finalizer(object: *mut ffi::PyObject) -> bool {
    // SAFETY: attached, and the object is alive.
    unsafe {
        object == ffi::Py_None()
            || ffi::PyType_Check(object) != 0
            || ffi::PyUnicode_CheckExact(object) != 0
            || ffi::PyBytes_CheckExact(object) != 0
            || ffi::PyLong_CheckExact(object) != 0
            || ffi::PyFloat_CheckExact(object) != 0
            || ffi::PyBool_Check(object) != 0
    }
}

/// Returns whether Python code may run when a reference to a future is dropped. That is so if the reference
/// is the last, and the future has weak references, or an object that may have a finalizer.
///
/// # Safety
/// The object is alive.
unsafe fn may_run_code(py: Python<'_>, future: NonNull<ffi::PyObject>) -> bool {
    extern "C" fn visit(object: *mut ffi::PyObject, _: *mut c_void) -> c_int {
        // SAFETY: the interpreter calls this with an object that is alive.
        c_int::from(!unsafe { has_no_finalizer(object) })
    }
    let object = future.as_ptr();
    // SAFETY: attached, and the object is alive.
    let future = unsafe {
        if ffi::Py_REFCNT(object) > 1 {
            return false;
        }
        Bound::from_borrowed_ptr(py, object)
    };
    // Another thread may come by a weak reference.
    with_critical_section(&future, || {
        // SAFETY: the object is alive. Its type takes part in garbage collection and has its list of weak
        // references at this offset. No thread takes anything out of it outside of a critical section.
        unsafe {
            let of_type = &*ffi::Py_TYPE(object);
            let offset = of_type.tp_weaklistoffset;
            let has_weak_references = offset != 0 && {
                let list = object.byte_offset(offset).cast::<*mut ffi::PyObject>();
                !AtomicPtr::from_ptr(list).load(Ordering::Relaxed).is_null()
            };
            has_weak_references
                || of_type
                    .tp_traverse
                    .is_none_or(|traverse| traverse(object, visit, ptr::null_mut()) != 0)
        }
    })
}

/// Drops the references if they have waited for some time. Returns when to call again.
pub(crate) fn drop_old() -> Option<Duration> {
    if !ANY.load(Ordering::Relaxed) {
        return None;
    }
    let due = pile().since? + PATIENCE;
    let left = due.saturating_duration_since(Instant::now());
    if !left.is_zero() {
        return Some(left);
    }
    attached(drop_released);
    None
}

// The child of a fork forgets the references: they are the parent's to drop.
#[cfg(unix)]
kept_across_forks!(pile(), Pile, |pile| {
    mem::forget(mem::take(&mut pile.futures));
    mem::forget(mem::take(&mut pile.others));
    pile.since = None;
    ANY.store(false, Ordering::Relaxed);
});

/// Drops the reference with which a future was enlisted.
///
/// # Safety
/// The reference is the caller's. It was made, and the object taken out of the garbage collector's
/// sight, when the task was submitted.
pub(crate) unsafe fn drop_reference(py: Python<'_>, future: NonNull<ffi::PyObject>) {
    let object = future.as_ptr();
    // SAFETY: the reference is the caller's, and the object was untracked when the task was submitted.
    unsafe {
        if ffi::PyObject_GC_IsTracked(object) == 0 {
            ffi::PyObject_GC_Track(object.cast());
        }
        drop(Bound::from_owned_ptr(py, object));
    }
}
