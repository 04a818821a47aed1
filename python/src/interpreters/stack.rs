//! The memory for the stack of Python's frames during a visit, which the worker keeps for its next visit.
//!
//! Each thread state that calls Python code maps a chunk of memory for frames, and unmaps the chunk at its end. For a
//! short call, that takes ten times as long as all else of a visit: other threads of the process have to notice, too. CPython
//! takes these chunks from its arena allocator. So an arena allocator of ours stands in front of CPython's. It keeps
//! one chunk for each worker from visit to visit, and passes all else on.
//!
//! # Invariants
//! 1. Each piece of memory comes from the allocator that was there before, and goes back to that allocator, with that
//!    allocator's context. So it does not matter whether an allocation reaches our functions or the others.
//! 2. A kept chunk belongs to its thread. Only visits of that thread use the chunk.
//! 3. CPython replaces the functions under a lock, and reads them without one. The thread that calls ours has therefore
//!    not synchronized with the thread that installed them. It waits for `ORIGINAL`, which was set before.

use pyo3::ffi;
use pyo3::prelude::*;
use std::cell::Cell;
use std::ffi::c_void;
use std::ptr;
use std::sync::{Once, OnceLock};

/// The bytes of a chunk, as CPython allocates them first for a thread state.
const CHUNK: usize = 16 * 1024;

thread_local! {
    /// Whether the calling thread visits an interpreter.
    static VISITS: Cell<bool> = const { Cell::new(false) };
    /// The chunk that the calling thread keeps; null if there is none.
    static KEPT: Cell<*mut c_void> = const { Cell::new(ptr::null_mut()) };
}

/// The allocator that was there before.
struct Original(ffi::PyObjectArenaAllocator);

// SAFETY: the functions of an arena allocator may be called by any thread.
unsafe impl Send for Original {}
// SAFETY: as for `Send`.
unsafe impl Sync for Original {}

static ORIGINAL: OnceLock<Original> = OnceLock::new();

/// Puts our functions in front of the arena allocator, once in a process.
pub(super) fn install(_py: Python<'_>) {
    static ONCE: Once = Once::new();
    let Original(original) = ORIGINAL.get_or_init(|| {
        let mut allocator = ffi::PyObjectArenaAllocator {
            ctx: ptr::null_mut(),
            alloc: None,
            free: None,
        };
        // SAFETY: attached; the function fills a structure.
        unsafe { ffi::PyObject_GetArenaAllocator(&raw mut allocator) };
        Original(allocator)
    });
    let mut ours = ffi::PyObjectArenaAllocator {
        ctx: original.ctx,
        alloc: Some(allocate),
        free: Some(release),
    };
    // SAFETY: attached; the function copies a structure. Another thread that allocates meanwhile finds the old
    // functions or ours, with one context (invariant 1). CPython reads these words without synchronization, which by the
    // rules of C is a race: a comment in its `obmalloc.c` accepts it for wrappers. We rely on aligned words being
    // copied as a whole, as the supported processors do.
    ONCE.call_once(|| unsafe { ffi::PyObject_SetArenaAllocator(&raw mut ours) });
}

extern "C" fn allocate(context: *mut c_void, size: usize) -> *mut c_void {
    if size == CHUNK && VISITS.get() {
        let kept = KEPT.replace(ptr::null_mut());
        if !kept.is_null() {
            return kept;
        }
    }
    match ORIGINAL.wait().0.alloc {
        Some(allocate) => allocate(context, size),
        None => ptr::null_mut(),
    }
}

extern "C" fn release(context: *mut c_void, memory: *mut c_void, size: usize) {
    if size == CHUNK && VISITS.get() && KEPT.get().is_null() {
        KEPT.set(memory);
        return;
    }
    if let Some(release) = ORIGINAL.wait().0.free {
        release(context, memory, size);
    }
}

/// Shows that the calling thread visits an interpreter, as long as this value lives.
pub(super) struct Visiting(());

impl Visiting {
    pub(super) fn begin() -> Self {
        VISITS.set(true);
        Self(())
    }
}

impl Drop for Visiting {
    fn drop(&mut self) {
        VISITS.set(false);
    }
}

/// Gives the chunk of the calling thread back, as the worker ends.
pub(super) fn give_back(_py: Python<'_>) {
    let kept = KEPT.replace(ptr::null_mut());
    if let Some(Original(original)) = ORIGINAL.get()
        && let Some(release) = original.free
        && !kept.is_null()
    {
        release(original.ctx, kept, CHUNK);
    }
}
