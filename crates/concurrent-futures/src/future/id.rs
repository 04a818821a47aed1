//! Numbers for futures.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};

/// Identifies a future: no two of a process have the same, ever.
///
/// # Examples
/// ```
/// use concurrent_futures::promise;
/// use std::collections::HashMap;
///
/// let (_promise, future) = promise::<u32>();
/// let urls = HashMap::from([(future.id(), "http://localhost/")]);
/// assert_eq!(urls[&future.id()], "http://localhost/");
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FutureId(u64);

/// Threads take numbers in blocks, so that they seldom share the counter.
const BLOCK: u64 = 64;

impl FutureId {
    pub(crate) fn next() -> Self {
        static BLOCKS: AtomicU64 = AtomicU64::new(0);
        thread_local! {
            static USED: Cell<u64> = const { Cell::new(0) };
        }
        USED.with(|used| {
            let mut last = used.get();
            if last % BLOCK == 0 {
                // ORDERING: Relaxed, as only the counter itself matters.
                last = BLOCKS.fetch_add(1, Ordering::Relaxed) * BLOCK;
            }
            used.set(last + 1);
            Self(last + 1)
        })
    }
}

impl fmt::Display for FutureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
