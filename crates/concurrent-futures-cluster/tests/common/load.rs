//! Tasks whose outcomes are checked: each future is done once, with the right value.

use super::PATIENCE;
use concurrent_futures::Future;
use concurrent_futures_cluster::ClusterExecutor;
use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::Duration;

/// A task of some milliseconds, with a value of some bytes.
pub(crate) fn work((n, millis, length): (u64, u64, usize)) -> Worked {
    thread::sleep(Duration::from_millis(millis));
    (
        3 * n,
        vec![n.to_le_bytes()[0]; length],
        rustix::process::getppid()
            .unwrap()
            .as_raw_nonzero()
            .get()
            .cast_unsigned(),
    )
}

/// The value of a task: a number, some bytes, and the host that has run it.
type Worked = (u64, Vec<u8>, u32);

/// Submitted tasks.
pub(crate) struct Load {
    /// With the lengths of their values.
    futures: Vec<(Future<Worked>, usize)>,
    called: Arc<AtomicUsize>,
}

impl Load {
    pub(crate) fn new() -> Self {
        Self {
            futures: Vec::new(),
            called: Arc::default(),
        }
    }

    /// Submits a task.
    pub(crate) fn add(
        &mut self,
        cluster: &ClusterExecutor,
        millis: u64,
        length: usize,
    ) -> Result<(), Box<dyn Error + Send + Sync>> {
        let n = self.futures.len() as u64;
        let future = cluster.submit(work, (n, millis, length))?;
        let called = Arc::clone(&self.called);
        future.add_done_callback(move |_| {
            called.fetch_add(1, Ordering::SeqCst);
        });
        self.futures.push((future, length));
        Ok(())
    }

    /// Returns how many tasks are done.
    pub(crate) fn done(&self) -> usize {
        self.called.load(Ordering::SeqCst)
    }

    /// Waits for all tasks, and checks them. Returns the hosts that have run them, by task.
    pub(crate) fn check(self) -> Result<Vec<u32>, Box<dyn Error + Send + Sync>> {
        let mut hosts = Vec::new();
        let count = self.futures.len();
        for (n, (mut future, length)) in self.futures.into_iter().enumerate() {
            let (value, bytes, host) = future.result_timeout(PATIENCE)?;
            assert_eq!(value, 3 * n as u64);
            assert_eq!(bytes, vec![n.to_le_bytes()[0]; length]);
            hosts.push(host);
        }
        super::wait_until("all callbacks are called", || {
            self.called.load(Ordering::SeqCst) >= count
        });
        assert_eq!(self.called.load(Ordering::SeqCst), count);
        Ok(hosts)
    }
}
