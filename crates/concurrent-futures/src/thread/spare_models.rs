//! Loom models of pools whose tasks wait for tasks of the same pool.
//!
//! The pool, its workers and the detector are those that run; the threads are loom's.

use crate::error::{BrokenExecutor, TaskError};
use crate::future::Future;
use crate::runtime::explored;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, thread};
use crate::task::{Call, Outcome};
use crate::thread::pool::Pool;
use crate::thread::spawner::{ThreadSpawner, WorkerThread};
use crate::{ReturnWhen, promise, wait};
use std::io;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// Checks a model in all orders with at most `preemptions` preemptions.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    explored::check(Some(preemptions), model);
}

/// A spawner that starts up to `left` threads.
struct LoomThreads {
    left: Mutex<usize>,
    started: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl ThreadSpawner for LoomThreads {
    fn start_thread(&self, _: usize, worker: WorkerThread) -> io::Result<Option<JoinHandle<()>>> {
        let mut left = self.left.lock().unwrap();
        *left = left.checked_sub(1).ok_or(io::ErrorKind::OutOfMemory)?;
        drop(left);
        let thread = thread::spawn(move || worker.run());
        self.started.lock().unwrap().push(thread);
        Ok(None)
    }

    fn initialize(&self) -> Result<(), BrokenExecutor> {
        Ok(())
    }
}

/// Makes a pool, and a function that ends it.
fn pool(max_workers: usize, threads: usize) -> (Arc<Pool>, impl FnOnce()) {
    let started = Arc::new(Mutex::new(Vec::new()));
    let spawner = LoomThreads {
        left: Mutex::new(threads),
        started: Arc::clone(&started),
    };
    let pool = Pool::with_spawner(max_workers, None, Box::new(spawner)).unwrap();
    let ended = Arc::clone(&pool);
    let end = move || {
        ended.close();
        loop {
            let next = started.lock().unwrap().pop();
            let Some(thread) = next else { break };
            thread.join().unwrap();
        }
        assert_eq!(ended.threads_alive(), 0);
    };
    (pool, end)
}

/// A task that calls a closure.
struct Do<F>(F);

impl<F: FnOnce() -> T, T> Call for Do<F> {
    type Output = T;

    fn call(self) -> Outcome<T> {
        Ok((self.0)())
    }

    fn name() -> &'static str {
        "a closure"
    }
}

fn submit<T: Send>(pool: &Arc<Pool>, f: impl FnOnce() -> T + Send) -> Future<T> {
    let submitted = pool.submit(Do(f));
    submitted.unwrap_or_else(|(error, _)| panic!("{error}"))
}

/// Counts running tasks, of which there must not be more than one.
fn alone(running: &AtomicUsize) {
    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
    running.fetch_sub(1, Ordering::SeqCst);
}

#[test]
fn the_only_worker_waits_for_a_task_of_its_pool() {
    check(1, || {
        let (pool, end) = pool(1, 2);
        let outer = submit(&pool, {
            let pool = Arc::clone(&pool);
            move || submit(&pool, || 5).result().unwrap()
        });
        assert_eq!(outer.result().unwrap(), 5);
        end();
    });
}

/// The spare worker parks while the worker that waited blocks again.
#[test]
fn the_only_worker_waits_twice() {
    check(1, || {
        let (pool, end) = pool(1, 2);
        let outer = submit(&pool, {
            let pool = Arc::clone(&pool);
            move || {
                let both = [submit(&pool, || 1), submit(&pool, || 2)];
                both.map(|one| one.result().unwrap())
            }
        });
        assert_eq!(outer.result().unwrap(), [1, 2]);
        end();
    });
}

/// The worker goes on as another future is cancelled, while the spare worker may be running. Neither of the
/// two takes a task while the other runs one.
#[test]
fn a_worker_that_goes_on_takes_no_task_beside_a_spare_worker() {
    check(1, || {
        let (pool, end) = pool(1, 2);
        let running = Arc::new(AtomicUsize::new(0));
        let (tell, told) = promise();
        let outer = submit(&pool, {
            let pool = Arc::clone(&pool);
            let running = Arc::clone(&running);
            move || {
                let (one, other) = (Arc::clone(&running), running);
                let inner = submit(&pool, move || alone(&one));
                let cancelled = Arc::new(submit(&pool, move || alone(&other)));
                tell.set_result(Arc::clone(&cancelled)).unwrap();
                wait([&inner, &*cancelled], None, ReturnWhen::FirstCompleted);
                inner
            }
        });
        let last = submit(&pool, move || alone(&running));
        told.result().unwrap().cancel();
        end();
        assert!(outer.is_done() && last.is_done());
    });
}

/// No thread can be started: the wait ends with the error, and the task is run later.
#[test]
fn a_wait_without_a_thread_for_it_ends() {
    check(2, || {
        let (pool, end) = pool(1, 1);
        let outer = submit(&pool, {
            let pool = Arc::clone(&pool);
            move || {
                let inner = submit(&pool, || 5);
                assert!(matches!(inner.exception(), Some(TaskError::Deadlock(_))));
                inner
            }
        });
        assert_eq!(outer.result().unwrap().result().unwrap(), 5);
        end();
    });
}

/// One of two workers may or may not have ended its task when the other blocks.
#[test]
fn one_of_two_workers_waits() {
    check(1, || {
        let (pool, end) = pool(2, 3);
        let outer = submit(&pool, {
            let pool = Arc::clone(&pool);
            move || submit(&pool, || 5).result().unwrap()
        });
        assert_eq!(outer.result().unwrap(), 5);
        end();
    });
}
