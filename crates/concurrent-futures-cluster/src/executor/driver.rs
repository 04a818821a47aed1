//! The engine's way to a cluster, and the futures of Rust programs.

#![forbid(unsafe_code)]

use super::families::Family;
use super::recorded::Extra;
use crate::client::{Arrived, Client, Sink};
use crate::service::run_on;
use crate::waits;
use bytes::Bytes;
use concurrent_futures::engine::{
    self, Driver, RemoteLoss, RemoteOutcome, RemoteRun, Sleeping, number_of,
};
use concurrent_futures::{FutureId, Promise, Value};
use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio::runtime::Handle;
use tokio::time::timeout;

/// The longest time that a cancellation may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The future of a Rust program. A program may have very many that are pending: what most do not need is elsewhere.
pub(super) struct RustSink<A, T> {
    pub(super) promise: Promise<T>,
    pub(super) family: Arc<Family<A, T>>,
    pub(super) extra: Option<Box<Extra>>,
}

impl<A: Value, T: Send + 'static> Sink for RustSink<A, T> {
    fn start(&self) -> bool {
        self.promise.set_running_or_notify_cancel()
    }

    fn cancel(self: Box<Self>) {
        engine::give_back(&self.promise);
        engine::cancel(&self.promise);
    }

    fn take_part(&self, first: u64, bytes: Bytes) {
        let span = self.extra.as_ref().and_then(|extra| extra.span.as_ref());
        if let Some((_, parts)) = span {
            parts.add(first, bytes.into());
        }
    }

    fn note_run(&mut self, run: RemoteRun) {
        Extra::note_run(&mut self.extra, run);
    }

    fn note_losses(&mut self, losses: Vec<RemoteLoss>) {
        Extra::note_losses(&mut self.extra, losses);
    }

    fn note_sent(&mut self, length: usize) {
        Extra::note_sent(&mut self.extra, length);
    }

    fn complete(self: Box<Self>, arrived: Arrived) {
        let Self {
            promise,
            family,
            extra,
        } = *self;
        let task = engine::id_of(&promise);
        let callbacks = Arc::clone(&family.callbacks);
        let is_plain = family.function.is_plain();
        let outcome = move || {
            let Family {
                function, named, ..
            } = &*family;
            let outcome = match &arrived {
                Arrived::Value(bytes) => {
                    function.receive(RemoteOutcome::Value(Cow::Borrowed(bytes)))
                }
                Arrived::Failure(bytes) => {
                    function.receive(RemoteOutcome::Failure(Cow::Borrowed(bytes)))
                }
                Arrived::Error(error) => Err(error.clone()),
            };
            let outcome = outcome.map_err(|error| named.named(task, error));
            // Before the future is done: a recording that is stopped then has all runs.
            let error_in = |value: &T| function.error_in(value);
            named.note_end(task, extra.as_deref(), &arrived, &outcome, error_in);
            outcome
        };
        if is_plain {
            if let Some(rest) = engine::complete(promise, outcome()) {
                callbacks.run(rest);
            }
        } else {
            callbacks.run(Box::new(move || {
                if let Some(rest) = engine::complete(promise, outcome()) {
                    rest();
                }
            }));
        }
    }
}

/// The engine's way to a cluster.
pub(super) struct ClusterDriver {
    pub(super) client: Arc<Client>,
    pub(super) handle: Handle,
}

impl ClusterDriver {
    pub(super) fn cancel_number(&self, number: u64) -> bool {
        let client = Arc::clone(&self.client);
        let cancelled = run_on(&self.handle, async move {
            timeout(PATIENCE, client.cancel(number)).await
        });
        match cancelled {
            Some(Ok(Some(sink))) => {
                sink.cancel();
                true
            }
            _ => false,
        }
    }

    pub(super) fn terminate_number(&self, number: u64) -> bool {
        let client = Arc::clone(&self.client);
        let ended = run_on(&self.handle, async move { client.terminate(number).await });
        ended.unwrap_or(false)
    }
}

impl Driver for ClusterDriver {
    fn drive(&self, _: FutureId, is_done: &dyn Fn() -> bool, _: Option<Instant>) -> bool {
        is_done()
    }

    fn cancel(&self, future: FutureId) -> bool {
        self.cancel_number(number_of(future))
    }

    fn forget(&self, future: FutureId) {
        self.client.forget(number_of(future));
    }

    fn has_begun(&self, future: FutureId) -> bool {
        self.client.has_begun(number_of(future))
    }

    fn terminate(&self, future: FutureId) -> bool {
        self.terminate_number(number_of(future))
    }

    fn note_sleep(&self) -> Option<Box<dyn Sleeping>> {
        waits::note_sleep()
    }
}

impl fmt::Debug for ClusterDriver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterDriver").finish_non_exhaustive()
    }
}
