//! Callbacks in a future's list.

use crate::error::TaskError;
use crate::future::{CANCELLED, Future};
use crate::task::Outcome;
use crate::task::list::{Action, Node};
use crate::task::panic::log_panic;
use std::ptr::NonNull;

/// A callback's entry in the list; freed when the callback is run.
#[repr(C)]
struct Callback<F> {
    node: Node,
    f: F,
}

impl<F> Callback<F> {
    /// # Safety
    /// `node` is the first field of a leaked box of this type, which is given
    /// back here; `outcome` is null or points to an `Outcome<T>`.
    unsafe fn run<T>(node: NonNull<Node>, outcome: *const ())
    where
        F: FnOnce(Result<&T, &TaskError>),
    {
        // SAFETY: `node` is the first field of a leaked box of this type, given back here; `outcome` is null
        // or points to an `Outcome<T>`.
        let (callback, outcome) = unsafe {
            (
                Box::from_raw(node.cast::<Self>().as_ptr()),
                outcome.cast::<Outcome<T>>().as_ref(),
            )
        };
        let outcome = outcome.map_or(Err(&CANCELLED), Result::as_ref);
        log_panic("a callback panicked", || (callback.f)(outcome));
    }
}

/// Adds a callback to the future, or runs it.
pub(super) fn add<T, F>(future: &Future<T>, f: F)
where
    F: FnOnce(Result<&T, &TaskError>) + Send + 'static,
{
    let callback = Box::new(Callback {
        node: Node::new(const { &Action::Callback(Callback::<F>::run::<T>) }),
        f,
    });
    let node = NonNull::from(Box::leak(callback)).cast::<Node>();
    // SAFETY: the box stays until the callback is run, which frees it.
    if !unsafe { future.task().state().register(node) } {
        // SAFETY: not registered, so the box is still ours.
        let callback = unsafe { Box::from_raw(node.cast::<Callback<F>>().as_ptr()) };
        log_panic("a callback panicked", || (callback.f)(future.look()));
    }
}
