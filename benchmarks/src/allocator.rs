//! An allocator that can count.
//!
//! The measuring process never switches counting on: there, this is the system's allocator and one branch that is always
//! taken the same way. Only the child process of the workload on memory counts.

use std::alloc::{GlobalAlloc, Layout, System};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

static COUNTING: AtomicBool = AtomicBool::new(false);
/// Counts of requested and usable bytes; they wrap around when memory from before the counting is freed, so
/// only differences count.
static REQUESTED: AtomicUsize = AtomicUsize::new(0);
static USABLE: AtomicUsize = AtomicUsize::new(0);

/// The bytes that are allocated at a moment.
#[derive(Clone, Copy)]
pub(crate) struct Live {
    /// Bytes that the program asked for.
    pub(crate) requested: usize,
    /// Bytes that the allocator set aside for the requests, without its own bookkeeping.
    pub(crate) usable: usize,
}

impl Live {
    /// Returns the growth of the memory since an earlier moment.
    pub(crate) fn since(self, earlier: Self) -> Self {
        Self {
            requested: self.requested.wrapping_sub(earlier.requested),
            usable: self.usable.wrapping_sub(earlier.usable),
        }
    }
}

/// Switches counting on, for good.
pub(crate) fn start_counting() {
    COUNTING.store(true, Ordering::Relaxed);
}

/// Returns the memory that is allocated now.
pub(crate) fn live() -> Live {
    Live {
        requested: REQUESTED.load(Ordering::Relaxed),
        usable: USABLE.load(Ordering::Relaxed),
    }
}

/// The system's allocator, with counting on demand.
pub(crate) struct Counting;

impl Counting {
    /// # Safety
    ///
    /// The pointer is null, or a block of that size which the system's allocator handed out and has not freed.
    unsafe fn add(pointer: *mut u8, size: usize) {
        if COUNTING.load(Ordering::Relaxed) {
            // SAFETY: by this function's own condition.
            let usable = unsafe { libc::malloc_usable_size(pointer.cast()) };
            REQUESTED.fetch_add(size, Ordering::Relaxed);
            USABLE.fetch_add(usable, Ordering::Relaxed);
        }
    }

    /// # Safety
    ///
    /// As for `add`.
    unsafe fn subtract(pointer: *mut u8, size: usize) {
        if COUNTING.load(Ordering::Relaxed) {
            // SAFETY: by this function's own condition.
            let usable = unsafe { libc::malloc_usable_size(pointer.cast()) };
            REQUESTED.fetch_sub(size, Ordering::Relaxed);
            USABLE.fetch_sub(usable, Ordering::Relaxed);
        }
    }
}

// SAFETY: every call is passed on to the system's allocator with the arguments it came with.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the conditions of `GlobalAlloc`, which are those of `System`.
        unsafe {
            let pointer = System.alloc(layout);
            Self::add(pointer, layout.size());
            pointer
        }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        // SAFETY: the caller keeps the conditions of `GlobalAlloc`, which are those of `System`.
        unsafe {
            let pointer = System.alloc_zeroed(layout);
            Self::add(pointer, layout.size());
            pointer
        }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: as in `alloc`; the block is counted before it is gone.
        unsafe {
            Self::subtract(pointer, layout.size());
            System.dealloc(pointer, layout);
        }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: as in `alloc`; nothing in this program survives that memory runs out, so a failure needs no undoing.
        unsafe {
            Self::subtract(pointer, layout.size());
            let pointer = System.realloc(pointer, layout, size);
            Self::add(pointer, size);
            pointer
        }
    }
}
