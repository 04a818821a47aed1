//! No pool at all: a thread for each task.

use std::thread::{self, JoinHandle};

use crate::pool::Pool;

/// `std::thread::spawn`, which has no number of workers.
pub(crate) struct StdThread;

impl Pool for StdThread {
    const NAME: &'static str = "std::thread::spawn";

    type Handle<T: Send + 'static> = JoinHandle<T>;

    fn new(_workers: usize) -> Self {
        Self
    }

    fn spawn<F, T>(&self, f: F) -> JoinHandle<T>
    where
        F: FnOnce() -> T + Send + 'static,
        T: Send + 'static,
    {
        thread::spawn(f)
    }

    fn take<T: Send + 'static>(&self, handle: JoinHandle<T>) -> T {
        handle.join().expect("the task returns")
    }
}
