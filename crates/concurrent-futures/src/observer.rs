//! The `Observer` trait, for programs that record the events of an executor.

#![forbid(unsafe_code)]

use crate::id::FutureId;
use std::sync::Arc;

/// Receives the events of each task of an executor; for timelines, counters and progress reports.
///
/// The calls come on the thread that submits or runs the task, so they should
/// be quick. A task that never runs (cancelled, or failed by a broken executor)
/// is not reported as started. An observer that panics is logged (by `tracing`), and
/// does not affect the task.
///
/// # Examples
/// ```
/// use concurrent_futures::{FutureId, Observer, ThreadPoolExecutor};
/// use std::sync::Arc;
/// use std::sync::atomic::{AtomicUsize, Ordering};
///
/// #[derive(Default)]
/// struct Running(AtomicUsize);
///
/// impl Observer for Running {
///     fn started(&self, _: FutureId) {
///         self.0.fetch_add(1, Ordering::Relaxed);
///     }
///     fn finished(&self, _: FutureId) {
///         self.0.fetch_sub(1, Ordering::Relaxed);
///     }
/// }
///
/// let running = Arc::new(Running::default());
/// let pool = ThreadPoolExecutor::builder().observer(Arc::clone(&running)).build()?;
/// let answer = pool.spawn({
///     let running = Arc::clone(&running);
///     move || running.0.load(Ordering::Relaxed)
/// })?;
/// assert_eq!(answer.result()?, 1);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Observer: Send + Sync {
    /// Receives the event that a task was submitted.
    ///
    /// # Examples
    /// See [`Observer`].
    fn submitted(&self, future: FutureId) {
        let _ = future;
    }

    /// Receives the event that a worker started the task.
    ///
    /// # Examples
    /// See [`Observer`].
    fn started(&self, future: FutureId) {
        let _ = future;
    }

    /// Receives the event that the task has finished, and that its callbacks have run.
    ///
    /// # Examples
    /// See [`Observer`].
    fn finished(&self, future: FutureId) {
        let _ = future;
    }
}

impl<O: Observer + ?Sized> Observer for Arc<O> {
    fn submitted(&self, future: FutureId) {
        (**self).submitted(future);
    }

    fn started(&self, future: FutureId) {
        (**self).started(future);
    }

    fn finished(&self, future: FutureId) {
        (**self).finished(future);
    }
}
