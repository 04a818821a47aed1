//! The calls of a thread pool's tasks.

#![forbid(unsafe_code)]

use crate::error::TaskError;
use crate::limit::Permit;
use crate::task::{Call, Outcome};
use std::any::type_name;
use std::error::Error;

/// Calls a closure.
pub(crate) struct Plain<F>(pub(crate) F);

impl<F: FnOnce() -> T, T> Call for Plain<F> {
    type Output = T;

    fn call(self) -> Outcome<T> {
        Ok((self.0)())
    }

    fn name() -> &'static str {
        type_name::<F>()
    }
}

/// Calls a closure whose `Err` is the future's error.
pub(crate) struct Fallible<F>(pub(crate) F);

impl<F, T, E> Call for Fallible<F>
where
    F: FnOnce() -> Result<T, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = T;

    fn call(self) -> Outcome<T> {
        (self.0)().map_err(TaskError::failed)
    }

    fn name() -> &'static str {
        type_name::<F>()
    }
}

/// Calls a function with its argument.
pub(crate) struct Applied<F, A>(pub(crate) F, pub(crate) A);

impl<F: FnOnce(A) -> T, A, T> Call for Applied<F, A> {
    type Output = T;

    fn call(self) -> Outcome<T> {
        Ok((self.0)(self.1))
    }

    fn name() -> &'static str {
        type_name::<F>()
    }
}

/// Calls a function with its argument; its `Err` is the future's error.
pub(crate) struct AppliedFallible<F, A>(pub(crate) F, pub(crate) A);

impl<F, A, T, E> Call for AppliedFallible<F, A>
where
    F: FnOnce(A) -> Result<T, E>,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = T;

    fn call(self) -> Outcome<T> {
        (self.0)(self.1).map_err(TaskError::failed)
    }

    fn name() -> &'static str {
        type_name::<F>()
    }
}

/// Releases a pending task's permit as soon as the call is called or dropped.
pub(crate) struct Limited<C> {
    pub(crate) permit: Permit,
    pub(crate) call: C,
}

impl<C: Call> Call for Limited<C> {
    type Output = C::Output;

    fn call(self) -> Outcome<C::Output> {
        drop(self.permit);
        self.call.call()
    }

    fn name() -> &'static str {
        C::name()
    }
}
