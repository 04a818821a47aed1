//! Values that take long to make, to drop or to announce. They delay neither their pool nor its time limits,
//! and a shutdown waits for them.

#![cfg(all(feature = "process", target_os = "linux"))]

mod common;

use common::eventually;
use common::process::{Gate, hold, pool, start_methods};
use concurrent_futures::{
    FutureId, Observer, ProcessPoolExecutor, Shutdown, StartMethod, TaskError, TaskOptions,
};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex, mpsc};
use std::task::{Context, Poll, Wake, Waker};
use std::thread;
use std::time::Duration;

concurrent_futures::init_before_main!();

/// Holds threads of this process until it is opened.
#[derive(Default)]
struct Door {
    open: Mutex<bool>,
    changed: Condvar,
    held: AtomicU32,
}

impl Door {
    fn pass(&self) {
        self.held.fetch_add(1, Ordering::SeqCst);
        let open = self.open.lock().unwrap();
        drop(self.changed.wait_while(open, |open| !*open).unwrap());
    }

    fn open(&self) {
        *self.open.lock().unwrap() = true;
        self.changed.notify_all();
    }

    fn wait_until_held(&self, number: u32) {
        eventually("foreign code runs", || {
            self.held.load(Ordering::SeqCst) >= number
        });
    }
}

/// Defines a type whose values are made as soon as a door is open, and the door.
macro_rules! slow {
    ($name:ident, $door:ident) => {
        static $door: Door = Door {
            open: Mutex::new(false),
            changed: Condvar::new(),
            held: AtomicU32::new(0),
        };

        #[derive(Debug)]
        struct $name;

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                0_u8.serialize(serializer)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                u8::deserialize(deserializer)?;
                let name = thread::current().name().map(str::to_owned);
                assert_ne!(name.as_deref(), Some("cf-supervisor"));
                $door.pass();
                Ok(Self)
            }
        }
    };
}

/// Starts both workers.
fn warm(pool: &ProcessPoolExecutor) {
    let gates = [Gate::new(), Gate::new()];
    let held = gates
        .each_ref()
        .map(|gate| pool.submit(hold, gate.path()).unwrap());
    for gate in &gates {
        gate.wait_until_reached();
    }
    for (gate, held) in gates.iter().zip(held) {
        gate.open();
        held.result().unwrap();
    }
}

/// Checks that a time limit holds, and that another task is done, while foreign code runs.
fn assert_goes_on(pool: &ProcessPoolExecutor) {
    let quick = pool.submit(|n: u32| n + 1, 1).unwrap();
    let (done, is_done) = mpsc::channel();
    quick.add_done_callback(move |result| done.send(result.copied().unwrap()).unwrap());
    assert_eq!(is_done.recv(), Ok(2));
    let options = TaskOptions::new().time_limit(Duration::from_millis(50));
    let gate = Gate::new();
    let endless = pool.submit_with(options, hold, gate.path()).unwrap();
    assert!(matches!(endless.result(), Err(TaskError::TimeLimit(_))));
}

#[test]
fn while_a_value_is_made_that_nobody_waits_for_the_pool_goes_on() {
    slow!(Slow, DOOR);
    let pool = pool(2, StartMethod::Spawn);
    warm(&pool);
    let slow = pool.submit(|()| Slow, ()).unwrap();
    DOOR.wait_until_held(1);
    assert_goes_on(&pool);
    assert!(!slow.is_done());
    DOOR.open();
    slow.result().unwrap();
}

#[test]
fn while_a_waiting_thread_makes_its_value_the_pool_goes_on() {
    slow!(Slow, DOOR);
    let pool = pool(2, StartMethod::Spawn);
    warm(&pool);
    let slow = pool.submit(|()| Slow, ()).unwrap();
    let waiting = thread::spawn(move || slow.result().map(drop));
    DOOR.wait_until_held(1);
    assert_goes_on(&pool);
    DOOR.open();
    waiting.join().unwrap().unwrap();
}

#[test]
fn a_value_that_takes_long_does_not_delay_others_of_its_kind() {
    #[derive(Debug, Serialize, Deserialize)]
    struct Quick(u32);
    slow!(Slow, DOOR);
    let pool = pool(2, StartMethod::Spawn);
    warm(&pool);
    let slow = [(), ()].map(|()| pool.submit(|()| Slow, ()).unwrap());
    DOOR.wait_until_held(1);
    for n in 0..10 {
        let quick = pool.submit(|n: u32| Quick(n), n).unwrap();
        eventually("a value of another thread", || quick.is_done());
        assert_eq!(quick.result().unwrap().0, n);
    }
    DOOR.open();
    for slow in slow {
        slow.result().unwrap();
    }
}

#[test]
fn a_shutdown_waits_for_values_that_are_being_made() {
    slow!(Slow, DOOR);
    for method in start_methods() {
        let pool = pool(1, method);
        let made_before = DOOR.held.load(Ordering::SeqCst);
        *DOOR.open.lock().unwrap() = false;
        let one = pool.submit(|()| Slow, ()).unwrap();
        let other = pool.submit(|()| Slow, ()).unwrap();
        let has_ended = AtomicBool::new(false);
        thread::scope(|scope| {
            // One is waited for, the other is not.
            scope.spawn(|| one.exception().is_none());
            DOOR.wait_until_held(made_before + 1);
            scope.spawn(|| {
                pool.shutdown(Shutdown::Wait);
                has_ended.store(true, Ordering::SeqCst);
            });
            eventually("the workers have ended", || pool.worker_pids().is_empty());
            assert!(!has_ended.load(Ordering::SeqCst));
            DOOR.open();
        });
        assert!(one.is_done() && other.is_done());
        other.result().unwrap();
    }
}

#[test]
fn a_value_may_shut_its_pool_down_while_it_is_made() {
    static POOL: Mutex<Option<Arc<ProcessPoolExecutor>>> = Mutex::new(None);
    #[derive(Debug)]
    struct Ends;
    impl Serialize for Ends {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            0_u8.serialize(serializer)
        }
    }
    impl<'de> Deserialize<'de> for Ends {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            u8::deserialize(deserializer)?;
            let pool = POOL.lock().unwrap().take().unwrap();
            pool.shutdown(Shutdown::Wait);
            Ok(Self)
        }
    }
    for waits in [true, false] {
        let pool = Arc::new(pool(1, StartMethod::Spawn));
        *POOL.lock().unwrap() = Some(Arc::clone(&pool));
        let ends = pool.submit(|()| Ends, ()).unwrap();
        if !waits {
            eventually("the value is there", || ends.is_done());
        }
        ends.result().unwrap();
        pool.shutdown(Shutdown::Wait);
        assert!(pool.worker_pids().is_empty());
    }
}

#[test]
fn while_a_value_that_nobody_wants_is_dropped_the_pool_goes_on() {
    static DOOR: Door = Door {
        open: Mutex::new(false),
        changed: Condvar::new(),
        held: AtomicU32::new(0),
    };
    #[derive(Serialize, Deserialize)]
    struct Slow(bool);
    impl Drop for Slow {
        fn drop(&mut self) {
            if self.0 && std::env::var_os("CONCURRENT_FUTURES_WORKER").is_none() {
                DOOR.pass();
            }
        }
    }
    let pool = pool(2, StartMethod::Spawn);
    warm(&pool);
    let gate = Gate::new();
    let slow = |gate| {
        hold(gate);
        Slow(true)
    };
    drop(pool.submit(slow, gate.path()).unwrap());
    gate.open();
    DOOR.wait_until_held(1);
    assert_goes_on(&pool);
    DOOR.open();
}

#[test]
fn while_a_waker_runs_the_pool_goes_on() {
    struct Slow(Door);
    impl Wake for Slow {
        fn wake(self: Arc<Self>) {
            self.0.pass();
        }
    }
    let pool = pool(2, StartMethod::Spawn);
    warm(&pool);
    let gate = Gate::new();
    let mut future = pin!(pool.submit(hold, gate.path()).unwrap());
    let slow = Arc::new(Slow(Door::default()));
    let waker = Waker::from(Arc::clone(&slow));
    let mut context = Context::from_waker(&waker);
    assert!(future.as_mut().poll(&mut context).is_pending());
    gate.open();
    slow.0.wait_until_held(1);
    let quick = pool.submit(|n: u32| n + 1, 1).unwrap();
    eventually("another task is done", || quick.is_done());
    assert_eq!(quick.result().unwrap(), 2);
    assert!(matches!(
        future.as_mut().poll(&mut context),
        Poll::Ready(Ok(()))
    ));
    slow.0.open();
}

#[test]
fn while_an_observer_is_told_the_pool_goes_on() {
    struct Slow(Arc<Door>);
    impl Observer for Slow {
        fn finished(&self, _: FutureId) {
            self.0.pass();
        }
    }
    let door = Arc::new(Door::default());
    let pool = ProcessPoolExecutor::builder()
        .max_workers(2)
        .observer(Slow(Arc::clone(&door)))
        .build()
        .unwrap();
    pool.submit(|n: u32| n, 1).unwrap().result().unwrap();
    door.wait_until_held(1);
    let quick = pool.submit(|n: u32| n + 1, 1).unwrap();
    eventually("another task is done", || quick.is_done());
    let options = TaskOptions::new().time_limit(Duration::from_millis(50));
    let gate = Gate::new();
    let endless = pool.submit_with(options, hold, gate.path()).unwrap();
    eventually("a limit holds", || endless.is_done());
    door.open();
    drop(quick);
    assert!(matches!(endless.result(), Err(TaskError::TimeLimit(_))));
}
