//! Exceptions that one thread sends to another, by `PyThreadState_SetAsyncExc`.
//!
//! A thread raises such an exception at the next check of its Python code. The interpreter has no function
//! that tells whether an exception waits. Running Python code to find out takes longer than all else that a
//! worker does between two tasks. So the place where the interpreter keeps the exception is looked up once,
//! and read from then on.
//!
//! The place differs between versions of CPython. To find it, a thread sends an object to itself, searches its
//! thread state for the object, and takes the object back. No exception that another thread sends may be lost by that. If the place is not found, each worker runs Python
//! code. Up to CPython 3.12, each worker does so always. An interpreter of these versions never stops looking
//! for an exception that was announced and taken back, and stands still under a profiler.
//!
//! # Invariants
//! 1. `PLACE` is 0, or the number of the word of each thread state that has the exception.

use crate::interp::os::signed_thread_number;
use crate::interp::turns::checkpoint;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyList;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::thread::{self, JoinHandle};

/// The number of words of a thread state that are searched. The states of all versions have more words.
const WORDS: usize = 40;

static PLACE: AtomicUsize = AtomicUsize::new(0);

type Word = AtomicPtr<ffi::PyObject>;

/// Returns the beginning of the state of the calling thread.
fn state(_py: Python<'_>) -> *const Word {
    // SAFETY: attached.
    unsafe { ffi::PyThreadState_Get().cast() }
}

/// Sends an object to the calling thread in place of the former object; null sends none.
fn send(_py: Python<'_>, object: *mut ffi::PyObject) {
    // SAFETY: attached; the number of the calling thread is that by which Python knows the thread.
    unsafe {
        ffi::PyThreadState_SetAsyncExc(signed_thread_number(), object);
    }
}

/// Finds the place of sent exceptions in the thread state, by a thread that has not got any.
///
/// # Errors
/// An exception that another thread has sent to the calling thread.
pub(crate) fn look_up_place(py: Python<'_>) -> PyResult<()> {
    if py.version_info() < (3, 13) {
        return Ok(());
    }
    if cfg!(Py_GIL_DISABLED) {
        // No other thread knows of this one, and so none sends it anything. Where the system refuses it, the place
        // stays unknown.
        let thread = thread::Builder::new().spawn(|| Python::try_attach(look_up_place_here));
        py.detach(|| drop(thread.map(JoinHandle::join)));
    } else {
        // Raises the earlier ones. From then on this thread has the interpreter's lock, and no other sends any.
        checkpoint(py)?;
        look_up_place_here(py);
    }
    Ok(())
}

fn look_up_place_here(py: Python<'_>) {
    // No other thread state, and nothing else in this one, refers to the object.
    let object = PyList::empty(py);
    let state = state(py);
    let is_in = |place: &usize| {
        // SAFETY: a word of the state of this thread, which is larger.
        let word = unsafe { &*state.add(*place) };
        // ORDERING: Relaxed: this thread has written it.
        word.load(Ordering::Relaxed) == object.as_ptr()
    };
    send(py, object.as_ptr());
    let found: Vec<usize> = (1..WORDS).filter(is_in).collect();
    send(py, std::ptr::null_mut());
    if let [place] = found[..]
        && !is_in(&place)
    {
        PLACE.store(place, Ordering::Relaxed);
    }
}

/// Returns whether an exception may have been sent to the calling thread.
pub(crate) fn may_wait(py: Python<'_>) -> bool {
    // ORDERING: Relaxed: it is written once, before there are workers.
    let place = PLACE.load(Ordering::Relaxed);
    if place == 0 {
        return true;
    }
    // SAFETY: a word of the state of this thread (invariant 1).
    let word = unsafe { &*state(py).add(place) };
    // ORDERING: Relaxed: threads that send one are attached, as this one is. Where several are
    // attached at once, an exception that comes at this moment may be seen later.
    !word.load(Ordering::Relaxed).is_null()
}
