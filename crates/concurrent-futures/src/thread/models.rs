//! Loom models of the queue and of the idle protocol.

use crate::future::blocking::NEVER;
use crate::runtime::explored;
use crate::runtime::os::signal::Signal;
use crate::runtime::sync::atomic::{AtomicUsize, Ordering};
use crate::runtime::sync::{Arc, thread};
use crate::task::{Call as TaskCall, Outcome, TaskRef};
use crate::thread::idle::{Idle, ParkOutcome, WakeAction};
use crate::thread::queue::Queue;

/// Checks a model in all orders with at most two preemptions.
fn check_bounded(model: impl Fn() + Send + Sync + 'static) {
    explored::check(Some(2), model);
}

/// A task that counts its runs.
struct Count(Arc<AtomicUsize>);

impl TaskCall for Count {
    type Output = ();

    fn call(self) -> Outcome<()> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    fn name() -> &'static str {
        "count"
    }
}

fn task(count: &Arc<AtomicUsize>) -> TaskRef {
    TaskRef::pair(Count(Arc::clone(count)), None).0
}

fn run(task: &TaskRef) {
    // SAFETY: the model is the only one that uses this state.
    assert!(unsafe { task.state().start() });
    // SAFETY: just started.
    unsafe {
        task.execute();
        task.finish();
    }
}

#[test]
fn a_pushed_task_is_popped_once() {
    check_bounded(|| {
        let queue = Arc::new(Queue::new());
        let count = Arc::new(AtomicUsize::new(0));
        let submitters = [(); 2].map(|()| {
            let (queue, count) = (Arc::clone(&queue), Arc::clone(&count));
            thread::spawn(move || queue.push(task(&count)).is_ok())
        });
        let mut popped = 0;
        if let Some(task) = queue.pop() {
            run(&task);
            popped += 1;
        }
        for submitter in submitters {
            assert!(submitter.join().unwrap());
        }
        while let Some(task) = queue.pop() {
            run(&task);
            popped += 1;
        }
        assert!(queue.is_empty());
        assert_eq!((popped, count.load(Ordering::Relaxed)), (2, 2));
    });
}

#[test]
fn one_submitters_tasks_come_in_order() {
    explored::check(None, || {
        let queue = Arc::new(Queue::new());
        let count = Arc::new(AtomicUsize::new(0));
        let tasks = [task(&count), task(&count)];
        let ids = [tasks[0].id(), tasks[1].id()];
        let submitter = thread::spawn({
            let queue = Arc::clone(&queue);
            move || {
                for task in tasks {
                    assert!(queue.push(task).is_ok());
                }
            }
        });
        let mut popped = Vec::new();
        popped.extend(queue.pop().map(|task| task.id()));
        submitter.join().unwrap();
        popped.extend(std::iter::from_fn(|| queue.pop().map(|task| task.id())));
        assert_eq!(popped, ids);
    });
}

#[test]
fn a_push_comes_before_the_close_or_is_refused() {
    explored::check(None, || {
        let queue = Arc::new(Queue::new());
        let count = Arc::new(AtomicUsize::new(0));
        let submitter = thread::spawn({
            let (queue, count) = (Arc::clone(&queue), Arc::clone(&count));
            move || queue.push(task(&count)).is_ok()
        });
        queue.close();
        let popped = queue.pop().is_some();
        assert_eq!(submitter.join().unwrap(), popped);
        assert!(queue.is_empty());
    });
}

/// Runs tasks until the queue is closed and empty, as a pool's worker without the tasks' contents. Mirrors
/// `worker::run_tasks`.
fn work(queue: &Queue, idle: &Idle, done: &AtomicUsize) {
    let signal = Arc::new(Signal::new());
    let mut searching = true;
    loop {
        if let Some(task) = queue.pop() {
            if searching {
                searching = false;
                if idle.stop_searching() && !queue.is_empty() {
                    // No thread may be started in this model.
                    assert_eq!(idle.call(), WakeAction::Nothing);
                }
            }
            run(&task);
            done.fetch_add(1, Ordering::Relaxed);
            continue;
        }
        if queue.is_finished() {
            if searching {
                idle.stop_searching();
            }
            idle.thread_ends();
            return;
        }
        searching = searching || idle.start_searching();
        let has_work = || !queue.is_empty() || queue.is_closed();
        idle.sleep(&signal, searching, has_work, None);
        searching = true;
    }
}

/// Checks that no wake-up is lost: a worker would sleep forever, which loom reports.
fn check_workers(workers: usize, tasks: usize) {
    check_bounded(move || {
        let queue = Arc::new(Queue::new());
        let idle = Arc::new(Idle::new(workers));
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        let mut threads = Vec::new();
        for _ in 0..tasks {
            assert!(queue.push(task(&count)).is_ok());
            if idle.call() == WakeAction::StartThread {
                let (queue, idle, done) =
                    (Arc::clone(&queue), Arc::clone(&idle), Arc::clone(&done));
                threads.push(thread::spawn(move || work(&queue, &idle, &done)));
            }
        }
        queue.close();
        idle.wake_all();
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(done.load(Ordering::Relaxed), tasks);
    });
}

#[test]
fn one_worker_misses_no_task() {
    check_workers(1, 2);
}

/// Checks that a task is done before the queue is closed, so that only the submitters' calls wake the worker.
#[test]
fn a_sleeping_worker_is_woken_for_a_task() {
    check_bounded(|| {
        let queue = Arc::new(Queue::new());
        let idle = Arc::new(Idle::new(1));
        let done = Arc::new(AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        assert_eq!(idle.call(), WakeAction::StartThread);
        let worker = thread::spawn({
            let (queue, idle, done) = (Arc::clone(&queue), Arc::clone(&idle), Arc::clone(&done));
            move || work(&queue, &idle, &done)
        });
        let (task, handle) = TaskRef::pair(Count(Arc::clone(&count)), None);
        assert!(queue.push(task).is_ok());
        assert_eq!(idle.call(), WakeAction::Nothing);
        crate::future::blocking::wait_parked(handle.state(), None, || false, NEVER);
        queue.close();
        idle.wake_all();
        worker.join().unwrap();
    });
}

/// Two submitters and two workers. A worker that takes the first task while the
/// second is pushed must call the other, or the submitter must.
#[test]
fn tasks_that_wait_for_each_other_get_two_workers() {
    check_bounded(|| {
        let queue = Arc::new(Queue::new());
        let idle = Arc::new(Idle::new(2));
        let count = Arc::new(AtomicUsize::new(0));
        let (first, first_handle) = TaskRef::pair(Count(Arc::clone(&count)), None);
        let (second, second_handle) = TaskRef::pair(Count(Arc::clone(&count)), None);
        // The task that is taken first blocks its worker until the other is done.
        let other_of = {
            let ids = [first_handle.id(), second_handle.id()];
            let handles = [second_handle.clone(), first_handle.clone()];
            Arc::new(move |task: &TaskRef| handles[usize::from(task.id() == ids[1])].clone())
        };
        let blocked = Arc::new(AtomicUsize::new(0));
        let start = || {
            let (queue, idle) = (Arc::clone(&queue), Arc::clone(&idle));
            let (other_of, blocked) = (Arc::clone(&other_of), Arc::clone(&blocked));
            thread::spawn(move || {
                let Some(task) = queue.pop() else {
                    idle.stop_searching();
                    idle.thread_ends();
                    return false;
                };
                let mut called = false;
                if idle.stop_searching() && !queue.is_empty() {
                    called = idle.call() == WakeAction::StartThread;
                }
                if blocked.fetch_add(1, Ordering::AcqRel) == 0 && !called {
                    crate::future::blocking::wait_parked(
                        other_of(&task).state(),
                        None,
                        || false,
                        NEVER,
                    );
                }
                run(&task);
                called
            })
        };
        let mut threads = Vec::new();
        for task in [first, second] {
            assert!(queue.push(task).is_ok());
            if idle.call() == WakeAction::StartThread {
                threads.push(start());
            }
        }
        for thread in threads {
            if thread.join().unwrap() {
                start().join().unwrap();
            }
        }
        assert_eq!(count.load(Ordering::Relaxed), 2);
    });
}

/// A worker whose time is over ends while a task is submitted. That worker or another takes the task, and
/// there is never more than one other.
#[test]
fn an_expiring_worker_misses_no_task() {
    check_bounded(|| {
        let queue = Arc::new(Queue::new());
        let idle = Arc::new(Idle::new(1));
        let alive = Arc::new(AtomicUsize::new(0));
        let count = Arc::new(AtomicUsize::new(0));
        let start = || {
            let (queue, idle, alive) = (Arc::clone(&queue), Arc::clone(&idle), Arc::clone(&alive));
            thread::spawn(move || {
                assert_eq!(alive.fetch_add(1, Ordering::SeqCst), 0);
                let signal = Arc::new(Signal::new());
                let mut searching = true;
                loop {
                    if let Some(task) = queue.pop() {
                        if searching {
                            searching = false;
                            idle.stop_searching();
                        }
                        run(&task);
                        continue;
                    }
                    let now = Some(std::time::Instant::now());
                    let has_work = || !queue.is_empty();
                    let awake = idle.sleep(&signal, searching, has_work, now);
                    searching = true;
                    // The model counts a worker out before the protocol does.
                    alive.fetch_sub(1, Ordering::SeqCst);
                    if awake == ParkOutcome::Expired && idle.end_unless(has_work) {
                        return;
                    }
                    alive.fetch_add(1, Ordering::SeqCst);
                }
            })
        };
        assert_eq!(idle.call(), WakeAction::StartThread);
        let mut threads = vec![start()];
        assert!(queue.push(task(&count)).is_ok());
        if idle.call() == WakeAction::StartThread {
            threads.push(start());
        }
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}

/// A worker that ends whatever there is to do, while a task is submitted: another worker is started
/// for the task, or was called.
#[test]
fn a_worker_that_quits_leaves_no_task_behind() {
    check_bounded(|| {
        let queue = Arc::new(Queue::new());
        let idle = Arc::new(Idle::new(1));
        let count = Arc::new(AtomicUsize::new(0));
        let start = {
            let (queue, idle) = (Arc::clone(&queue), Arc::clone(&idle));
            Arc::new(move || {
                let (queue, idle) = (Arc::clone(&queue), Arc::clone(&idle));
                thread::spawn(move || {
                    while let Some(task) = queue.pop() {
                        run(&task);
                    }
                    idle.stop_searching();
                    idle.thread_ends();
                })
            })
        };
        assert_eq!(idle.call(), WakeAction::StartThread);
        let quitting = thread::spawn({
            let (queue, idle, start) = (Arc::clone(&queue), Arc::clone(&idle), Arc::clone(&start));
            move || {
                let signal = Arc::new(Signal::new());
                let now = Some(std::time::Instant::now());
                let has_work = || !queue.is_empty();
                idle.sleep(&signal, true, has_work, now);
                (!idle.end_unless(has_work)).then(|| start())
            }
        });
        assert!(queue.push(task(&count)).is_ok());
        let mut threads = Vec::new();
        if idle.call() == WakeAction::StartThread {
            threads.push(start());
        }
        threads.extend(quitting.join().unwrap());
        for thread in threads {
            thread.join().unwrap();
        }
        assert_eq!(count.load(Ordering::Relaxed), 1);
    });
}
