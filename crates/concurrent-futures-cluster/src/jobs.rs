//! The thread that runs foreign code for an executor: callbacks, and the making of values.

#![forbid(unsafe_code)]

use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc::{self, Sender};
use std::sync::{Mutex, PoisonError};
use std::thread::{self, JoinHandle};

pub(crate) type Job = Box<dyn FnOnce() + Send>;

/// A thread that does jobs one after the other.
#[derive(Debug)]
pub(crate) struct Jobs {
    sender: Mutex<Option<Sender<Job>>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

impl Jobs {
    /// Starts the thread.
    pub(crate) fn start() -> io::Result<Self> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let thread = thread::Builder::new()
            .name(String::from("cf-cluster-callbacks"))
            .spawn(move || {
                for job in jobs {
                    // The engine has logged panics of callbacks. This one is of a value's destructor.
                    if let Err(payload) = catch_unwind(AssertUnwindSafe(job)) {
                        std::mem::forget(payload);
                        crate::log::trouble(
                            "foreign code panicked",
                            &"a value could not be handed over",
                        );
                    }
                }
            })?;
        Ok(Self {
            sender: Mutex::new(Some(sender)),
            thread: Mutex::new(Some(thread)),
        })
    }

    /// Does a job. After the end, the calling thread does it.
    pub(crate) fn run(&self, job: Job) {
        let sender = self.sender.lock().unwrap_or_else(PoisonError::into_inner);
        let left = match &*sender {
            Some(sender) => sender.send(job).err().map(|unsent| unsent.0),
            None => Some(job),
        };
        drop(sender);
        if let Some(job) = left {
            job();
        }
    }

    /// Returns whether the calling thread is the one that does the jobs.
    pub(crate) fn is_current(&self) -> bool {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner);
        thread
            .as_ref()
            .is_some_and(|thread| thread.thread().id() == thread::current().id())
    }

    /// Waits until all jobs are done, and ends the thread.
    pub(crate) fn finish(&self) {
        if self.is_current() {
            return;
        }
        drop(
            self.sender
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take(),
        );
        let thread = self
            .thread
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // Panics of jobs are caught.
            let _ = thread.join();
        }
    }
}
