//! Numbers for futures.

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
const BLOCK: u64 = 1 << 12;

impl FutureId {
    pub(crate) fn next() -> Self {
        static NEXT_BLOCK: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static NEXT: Cell<u64> = const { Cell::new(0) };
        }
        NEXT.with(|next| {
            let mut id = next.get();
            if id % BLOCK == 0 {
                // ORDERING: Relaxed, as only the counter itself matters.
                id = NEXT_BLOCK.fetch_add(1, Ordering::Relaxed) * BLOCK;
            }
            next.set(id + 1);
            Self(id)
        })
    }
}

impl fmt::Display for FutureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
