//! Models of pools whose tasks wait for their own tasks, checked by loom: the pool, its workers
//! and the detector as they run, with threads of loom's.

use super::host::{Host, WorkerThread};
use super::pool::Pool;
use crate::error::{BrokenExecutor, TaskError};
use crate::future::{Call, Future, Outcome};
use crate::sync::atomic::{AtomicUsize, Ordering};
use crate::sync::{Arc, thread};
use crate::{ReturnWhen, promise, wait};
use std::io;
use std::sync::Mutex;
use std::thread::JoinHandle;

/// All orders with at most `preemptions`.
fn check(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = Some(preemptions);
    builder.max_branches = 10_000;
    builder.check(model);
}

/// Starts up to `left` threads.
struct LoomThreads {
    left: Mutex<usize>,
    started: Arc<Mutex<Vec<thread::JoinHandle<()>>>>,
}

impl Host for LoomThreads {
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

/// A pool, and how to end it.
fn pool(max_workers: usize, threads: usize) -> (Arc<Pool>, impl FnOnce()) {
    let started = Arc::new(Mutex::new(Vec::new()));
    let host = LoomThreads {
        left: Mutex::new(threads),
        started: Arc::clone(&started),
    };
    let pool = Pool::with_host(max_workers, None, Box::new(host)).unwrap();
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

/// A task of a closure.
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

/// Counts the tasks that run, of which there must not be more than one.
fn alone(running: &AtomicUsize) {
    assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0);
    running.fetch_sub(1, Ordering::SeqCst);
}

#[test]
fn the_only_worker_waits_for_a_task_of_its_pool() {
    check(2, || {
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

/// The worker goes on as another future is cancelled, while the spare worker may be running.
/// Neither the worker nor the spare one takes a task while the other runs one.
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
        assert!(outer.done() && last.done());
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

/// Of two workers, the one may have ended its task, or not, when the other blocks.
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
