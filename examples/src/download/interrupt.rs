//! Ctrl-C, as a flag to look at and as a future to wait for.

use super::failure::Failure;
use super::fetch::Saved;
use concurrent_futures::{Future, Promise, promise};
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// A flag that the user raises to stop the program. Clones share the flag.
#[derive(Clone, Debug, Default)]
pub struct Interrupt {
    shared: Arc<Shared>,
}

#[derive(Debug, Default)]
struct Shared {
    raised: AtomicBool,
    promises: Mutex<Vec<Promise<Result<Saved, Failure>>>>,
}

impl Interrupt {
    /// Makes an interrupt that Ctrl-C raises.
    ///
    /// # Errors
    /// If there is one already, for a process has one handler.
    pub fn on_ctrl_c() -> Result<Self, ctrlc::Error> {
        let interrupt = Self::default();
        let raised = interrupt.clone();
        ctrlc::set_handler(move || raised.raise())?;
        Ok(interrupt)
    }

    /// Tells all downloads to stop.
    pub fn raise(&self) {
        self.shared.raised.store(true, Ordering::SeqCst);
        for promise in mem::take(&mut *self.promises()) {
            fulfil(&promise);
        }
    }

    /// Returns whether the program is to stop.
    #[must_use]
    pub fn raised(&self) -> bool {
        self.shared.raised.load(Ordering::SeqCst)
    }

    /// Returns a future that fails with [`Failure::Interrupted`] when Ctrl-C is pressed, and is never done
    /// otherwise.
    pub fn future(&self) -> Future<Result<Saved, Failure>> {
        let (promise, future) = promise();
        let mut promises = self.promises();
        if self.raised() {
            fulfil(&promise);
        } else {
            promises.push(promise);
        }
        future
    }

    fn promises(&self) -> MutexGuard<'_, Vec<Promise<Result<Saved, Failure>>>> {
        let promises = self.shared.promises.lock();
        promises.unwrap_or_else(PoisonError::into_inner)
    }
}

fn fulfil(promise: &Promise<Result<Saved, Failure>>) {
    // Refused when the waiting code has cancelled the future, and then doesn't wait for it.
    let _ = promise.set_result(Err(Failure::Interrupted));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn raising_it_fails_its_futures_earlier_and_later_ones() {
        let interrupt = Interrupt::default();
        let earlier = interrupt.future();
        assert!(!interrupt.raised() && !earlier.is_done());
        interrupt.clone().raise();
        assert!(interrupt.raised());
        for future in [earlier, interrupt.future()] {
            assert!(matches!(future.result(), Ok(Err(Failure::Interrupted))));
        }
    }
}
