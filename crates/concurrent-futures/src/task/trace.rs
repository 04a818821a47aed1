//! The spans of tasks for `tracing`, behind the feature `spans`. Without it, all of this is nothing.
//!
//! A span is made when its task is submitted, under the current span of the submitter. A worker thread enters the
//! span for the time of the call. So the idle time of the span is the time in the queue. A task of a worker process is
//! not entered: the span of its own process ends with the answer.

#![forbid(unsafe_code)]

use crate::task::{Call, Outcome};

/// The span of a task.
#[derive(Debug)]
pub(crate) struct TaskSpan {
    #[cfg(feature = "spans")]
    span: tracing::Span,
}

impl TaskSpan {
    /// Makes the span of a task that the calling thread submits. Calls foreign code.
    #[cfg_attr(
        not(feature = "spans"),
        allow(clippy::missing_const_for_fn, unused_variables)
    )]
    #[inline]
    pub(crate) fn new(function: fn() -> &'static str) -> Self {
        Self {
            #[cfg(feature = "spans")]
            span: tracing::info_span!(
                target: "concurrent_futures",
                "task",
                function = function(),
                error = tracing::field::Empty,
            ),
        }
    }

    /// Makes no span.
    pub(crate) fn none() -> Self {
        Self {
            #[cfg(feature = "spans")]
            span: tracing::Span::none(),
        }
    }

    /// Returns whether anything wants to know of the span.
    #[cfg(feature = "spans")]
    fn is_on(&self) -> bool {
        !self.span.is_disabled()
    }

    /// Ends the span, with the error of the task. Calls foreign code.
    #[cfg(all(feature = "process", unix))]
    #[cfg_attr(not(feature = "spans"), allow(unused_variables, clippy::unused_self))]
    #[inline]
    pub(crate) fn end(&mut self, error: impl FnOnce() -> Option<String>) {
        #[cfg(feature = "spans")]
        if self.is_on() {
            if let Some(error) = error() {
                self.span.record("error", error);
            }
            self.span = tracing::Span::none();
        }
    }
}

/// A call with its span.
pub(crate) struct Spanned<C> {
    pub(crate) call: C,
    #[cfg_attr(not(feature = "spans"), allow(dead_code))]
    span: TaskSpan,
}

impl<C: Call> Spanned<C> {
    /// Makes the span of a call that the calling thread submits. Calls foreign code.
    #[inline]
    pub(crate) fn new(call: C) -> Self {
        Self {
            call,
            span: TaskSpan::new(C::name),
        }
    }
}

impl<C: Call> Call for Spanned<C> {
    type Output = C::Output;

    #[inline]
    fn call(self) -> Outcome<C::Output> {
        #[cfg(feature = "spans")]
        if self.span.is_on() {
            return traced(&self.span.span, self.call);
        }
        self.call.call()
    }

    fn name() -> &'static str {
        C::name()
    }
}

#[cfg(feature = "spans")]
#[cold]
fn traced<C: Call>(span: &tracing::Span, call: C) -> Outcome<C::Output> {
    use crate::error::TaskError;
    use crate::task::panic;

    let entered = span.enter();
    let outcome = panic::catch(|| call.call());
    let outcome = outcome.unwrap_or_else(|panic| Err(TaskError::Panicked(panic)));
    drop(entered);
    if let Err(error) = &outcome {
        // `Display` is foreign code.
        if let Ok(text) = panic::catch(|| error.to_string()) {
            span.record("error", text);
        }
    }
    outcome
}
