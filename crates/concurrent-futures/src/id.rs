//! The numbers that identify futures and pools.

#![forbid(unsafe_code)]

use std::cell::Cell;
use std::fmt;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

/// The identity of a future. No two futures of a process ever have the same.
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

/// The length of the blocks in which threads take numbers, so that they seldom share the counter.
const BLOCK: u64 = 64;

impl FutureId {
    /// Returns the number.
    pub(crate) fn number(self) -> u64 {
        self.0
    }

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

/// The identity of a pool. No two pools of a process ever have the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct PoolId(NonZeroUsize);

impl PoolId {
    /// Returns an identity that no other pool has.
    #[allow(unreachable_pub, reason = "it is for other frontends")]
    pub fn next() -> Self {
        static LAST: AtomicUsize = AtomicUsize::new(0);
        loop {
            // ORDERING: Relaxed, as only the counter itself matters.
            let last = LAST.fetch_add(1, Ordering::Relaxed);
            if let Some(number) = NonZeroUsize::new(last.wrapping_add(1)) {
                return Self(number);
            }
        }
    }

    /// Returns the number of the pool; 0 for none.
    pub(crate) fn number(pool: Option<Self>) -> usize {
        pool.map_or(0, |pool| pool.0.get())
    }

    /// Returns the pool whose [`number`](Self::number) this is.
    pub(crate) fn from_number(number: usize) -> Option<Self> {
        NonZeroUsize::new(number).map(Self)
    }
}

/// Returns the number of a future, by which frontends keep it.
pub fn number_of(future: FutureId) -> u64 {
    future.number()
}

impl fmt::Display for FutureId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}
