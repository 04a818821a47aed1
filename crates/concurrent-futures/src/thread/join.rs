//! The end of a pool: `shutdown`, and the wait for the last thread.

use crate::deadlock::{self, Blocking, Escape, NO_FUTURES, Need, Wait};
use crate::error::Deadlock;
use crate::future::blocking::{NEVER, Stop};
use crate::runtime::os::signal::{Signal, Woken};
use crate::runtime::sync::{self, Arc};
use crate::task::current::{self, Worker};
use crate::task::log;
use crate::thread::pool::Pool;
use std::thread;

impl Pool {
    pub(super) fn shutdown(self: &Arc<Self>, wait: bool, cancel_futures: bool) {
        self.close();
        if cancel_futures {
            self.cancel_pending();
        }
        if wait && !current::is_worker_of(self.id) {
            self.join();
        }
    }

    /// Waits, for a closed pool, until there is no thread, none is being started, and no task is left.
    /// Threads may still be on their last steps. Returns false if `stop` returned true.
    ///
    /// # Errors
    /// `Deadlock`, if a task of the pool waits for the calling task.
    pub fn wait_for_threads(&self, stop: Stop<'_>) -> Result<bool, Deadlock> {
        let mut has_waited = false;
        loop {
            let signal = Arc::new(Signal::new());
            let mut threads = sync::lock(&self.threads);
            if threads.alive > 0 {
                threads.waiting.push(Arc::clone(&signal));
                drop(threads);
                // A signal of the system may have come together with the notification.
                if has_waited && stop() {
                    return Ok(false);
                }
                has_waited = true;
                if !current::with_worker(|worker| self.wait_for_signal(&signal, worker, stop))? {
                    return Ok(false);
                }
                continue;
            }
            drop(threads);
            if self.queue.is_empty() {
                return Ok(true);
            }
            // A submitter is between its push and its call for a worker.
            if stop() {
                return Ok(false);
            }
            thread::yield_now();
        }
    }

    /// Waits for the signal of the last thread. Returns false if `stop` returned true.
    fn wait_for_signal(
        &self,
        signal: &Arc<Signal>,
        worker: Option<&Worker<'_>>,
        stop: Stop<'_>,
    ) -> Result<bool, Deadlock> {
        let blocking = match worker {
            Some(worker) => Some(deadlock::block(
                worker,
                Wait {
                    need: Need::End(self.id),
                    futures: NO_FUTURES,
                    is_timed: false,
                    escape: Escape::LastResort(Arc::clone(signal)),
                },
            )?),
            None => None,
        };
        let interrupted = || blocking.as_ref().and_then(Blocking::interrupted);
        loop {
            if let Some(deadlock) = interrupted() {
                return Err(deadlock.clone());
            }
            if signal.wait_once(None) == Woken::Notified {
                if let Some(deadlock) = interrupted() {
                    return Err(deadlock.clone());
                }
                return Ok(true);
            }
            if stop() {
                return Ok(false);
            }
        }
    }

    /// Waits until the queue is empty and all threads have ended.
    fn join(&self) {
        if let Err(deadlock) = self.wait_for_threads(NEVER) {
            log::end_not_awaited(&deadlock);
            return;
        }
        let handles = loop {
            let mut threads = sync::lock(&self.threads);
            if threads.starting == 0 {
                break std::mem::take(&mut threads.handles);
            }
            drop(threads);
            thread::yield_now();
        };
        for handle in handles {
            // Workers catch the panics of tasks; what is left is a panicking destructor of a
            // thread-local value, which the hook has reported.
            drop(handle.join());
        }
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::error::{BrokenExecutor, TaskError};
    use crate::runtime::sync::Mutex;
    use crate::task::Call;
    use crate::thread::spawner::{ThreadSpawner, WorkerThread};
    use crate::thread::std_threads::Threads as HostThreads;
    use std::cell::RefCell;
    use std::io;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::JoinHandle;
    use std::time::Duration;

    /// A spawner that starts threads, and returns from a start when the test allows it.
    struct Slow(HostThreads, Mutex<Receiver<()>>);

    impl ThreadSpawner for Slow {
        fn start_thread(
            &self,
            number: usize,
            worker: WorkerThread,
        ) -> io::Result<Option<JoinHandle<()>>> {
            let started = self.0.start_thread(number, worker);
            let _ = sync::lock(&self.1).recv();
            started
        }

        fn initialize(&self) -> Result<(), BrokenExecutor> {
            Ok(())
        }
    }

    static HAS_ENDED: AtomicBool = AtomicBool::new(false);

    /// A value whose drop lasts until the test allows its end.
    struct Ends(Receiver<()>);

    impl Drop for Ends {
        fn drop(&mut self) {
            let _ = self.0.recv();
            HAS_ENDED.store(true, Ordering::SeqCst);
        }
    }

    thread_local! {
        static ENDS: RefCell<Option<Ends>> = const { RefCell::new(None) };
    }

    struct Keep(Ends);

    impl Call for Keep {
        type Output = ();

        fn call(self) -> Result<(), TaskError> {
            ENDS.set(Some(self.0));
            Ok(())
        }

        fn name() -> &'static str {
            "keep"
        }
    }

    /// Lets the worker end while the submitter is still starting its thread; the worker's thread-locals end
    /// later.
    #[test]
    fn shutdown_waits_for_a_thread_that_is_just_being_started() {
        let channels: (Sender<()>, _) = channel();
        let (start, starts) = channels;
        let (end, ends) = channel();
        let threads = HostThreads {
            name_prefix: "slow".to_owned(),
            stack_size: None,
            initializer: None,
        };
        let spawner = Slow(threads, Mutex::new(starts));
        let pool = Pool::with_spawner(1, None, Box::new(spawner)).unwrap();
        let submitter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || pool.submit(Keep(Ends(ends))).is_ok()
        });
        while pool.threads_alive() == 0 || !pool.queue.is_empty() {
            thread::yield_now();
        }
        let waiter = thread::spawn({
            let pool = Arc::clone(&pool);
            move || {
                pool.shutdown(true, false);
                HAS_ENDED.load(Ordering::SeqCst)
            }
        });
        while pool.threads_alive() > 0 {
            thread::yield_now();
        }
        // Time to go wrong.
        thread::sleep(Duration::from_millis(10));
        start.send(()).unwrap();
        end.send(()).unwrap();
        assert!(submitter.join().unwrap());
        assert!(waiter.join().unwrap());
    }
}
