//! The thread of a cluster: all that touches the network runs in it.

#![forbid(unsafe_code)]

use crate::log;
use futures_util::FutureExt;
use std::future::Future;
use std::io;
use std::panic::AssertUnwindSafe;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};
use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

/// A thread that runs asynchronous code.
#[derive(Debug)]
pub(crate) struct Service {
    handle: Handle,
    end: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Service {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let handle = runtime.handle().clone();
        let (end, ended) = oneshot::channel::<()>();
        let thread = thread::Builder::new()
            .name(String::from("cf-cluster"))
            .spawn(move || {
                // It ends with the sender.
                let _ = runtime.block_on(ended);
                // Tasks are dropped here, in their thread.
                drop(runtime);
            })?;
        Ok(Self {
            handle,
            end: Some(end),
            thread: Some(thread),
        })
    }

    pub(crate) fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Runs asynchronous code in the thread, and waits for its result. None if the thread has ended.
    pub(crate) fn run<R: Send + 'static>(
        &self,
        work: impl Future<Output = R> + Send + 'static,
    ) -> Option<R> {
        run_on(&self.handle, work)
    }
}

/// Runs asynchronous code in the thread of a service, and waits for its result. None if the thread has ended, or the code
/// has panicked, which is logged.
pub(crate) fn run_on<R: Send + 'static>(
    handle: &Handle,
    work: impl Future<Output = R> + Send + 'static,
) -> Option<R> {
    let (sender, receiver) = mpsc::channel();
    handle.spawn(async move {
        match AssertUnwindSafe(work).catch_unwind().await {
            // The receiver waits.
            Ok(result) => drop(sender.send(result)),
            Err(payload) => {
                let message = log::text_of_panic(payload);
                log::panicked(&format!("a call of a cluster's thread: {message}"));
            }
        }
    });
    receiver.recv().ok()
}

impl Drop for Service {
    fn drop(&mut self) {
        drop(self.end.take());
        if let Some(thread) = self.thread.take()
            && thread.thread().id() != thread::current().id()
        {
            // It does not panic: the runtime catches panics of tasks.
            let _ = thread.join();
        }
    }
}
