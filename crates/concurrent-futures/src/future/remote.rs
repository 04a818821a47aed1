//! Promises of futures whose tasks other code runs, which can be recalled and cancelled while they run.

use crate::error::TaskError;
use crate::future::Future;
use crate::future::promise::{Promise, Promised, pair};
use crate::id::{FutureId, PoolId};
use crate::task::state::{Advance, Cancel, Phase};

/// The work that is left of completing a future: foreign code, such as callbacks.
pub type Rest = Box<dyn FnOnce() + Send>;

/// Makes a pending future of a pool that other code implements, and the promise that sets its outcome. The
/// pool is asked when the future is cancelled or terminated while it runs; see
/// [`Driver`](crate::future::driver::Driver).
pub fn promise_in<T>(pool: PoolId) -> (Promise<T>, Future<T>) {
    pair(Some(pool))
}

/// Returns the number of the future.
pub fn id_of<T>(promise: &Promise<T>) -> FutureId {
    promise.task.id()
}

/// Gives the future its outcome. Returns the work that is left if foreign code is to be called for it; none if
/// the future is done, or was done before.
pub fn complete<T: Send + 'static>(
    promise: Promise<T>,
    outcome: Result<T, TaskError>,
) -> Option<Rest> {
    // SAFETY: a promise completes its own task, whose call needs no drop.
    if unsafe { promise.task.state().claim() }.is_err() {
        return None;
    }
    // SAFETY: claimed; the call's type is that of `promise_in`. The outcome is written before the future is
    // finished, here or by the rest.
    unsafe {
        promise.task.write_outcome::<Promised<T>>(outcome);
        if promise.task.state().finish_uncalled() {
            return None;
        }
    }
    Some(Box::new(move || {
        // SAFETY: claimed and written above, and not finished; this runs once.
        unsafe { promise.task.finish() };
    }))
}

/// Gives a running future back, as nothing has begun its work. Returns whether it is pending now.
pub fn give_back<T>(promise: &Promise<T>) -> bool {
    // SAFETY: a promise that has begun the work is what may give it back. No thread is notified, as the future
    // is not done by that.
    let went = unsafe {
        let state = promise.task.state();
        state.advance(&[Phase::Running], Phase::Pending, true)
    };
    went == Advance::Done
}

/// Cancels the future, if it is pending. Returns whether it is cancelled.
pub fn cancel<T>(promise: &Promise<T>) -> bool {
    promise.task.cancel() != Cancel::TooLate
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn a_running_future_is_given_back_and_cancelled() {
        let (promise, future) = promise_in::<u32>(PoolId::next());
        assert!(!give_back(&promise));
        assert!(promise.set_running_or_notify_cancel());
        assert!(!cancel(&promise) && !future.is_cancelled());
        assert!(give_back(&promise) && cancel(&promise));
        assert!(future.is_cancelled());
        assert!(complete(promise, Ok(1)).is_none());
        assert!(matches!(future.result(), Err(TaskError::Cancelled)));
    }

    #[test]
    fn callbacks_are_left_to_the_rest() {
        let (promise, future) = promise_in(PoolId::next());
        assert!(complete(promise, Ok(1)).is_none());
        assert_eq!(future.result().unwrap(), 1);
        let (promise, future) = promise_in(PoolId::next());
        let (sender, receiver) = mpsc::channel();
        future.add_done_callback(move |result| sender.send(*result.unwrap()).unwrap());
        let rest = complete(promise, Ok(2)).unwrap();
        assert!(!future.is_done() && receiver.try_recv().is_err());
        rest();
        assert!(future.is_done());
        assert_eq!(receiver.try_recv(), Ok(2));
    }
}
