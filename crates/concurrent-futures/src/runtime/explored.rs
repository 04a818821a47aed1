//! The atomics of models: loom's, with marks that make loom try all orders of accesses.
//!
//! Loom 0.7 looks at the last access to an atomic only to find an order that it has not tried
//! (<https://github.com/tokio-rs/loom/issues/166>, <https://github.com/tokio-rs/loom/issues/392>). If a thread loads, and
//! then stores, its own load hides the earlier load of another thread: loom never tries the store before that load. A
//! model of which each thread loads first is even tried in one order only.
//!
//! So each thread that loads marks an atomic of its own first. A thread that changes the value touches the marks of the
//! loads that others have hidden. Marks have one effect on the order of memory. A release fence of a thread that loads
//! comes before an acquire fence of one that changes the value afterwards.
//!
//! [`check`] counts the orders, and fails for a model that has only one.

#![forbid(unsafe_code)]

pub(crate) use loom::sync::atomic::{Ordering, fence};
#[cfg(test)]
use std::sync::{
    Arc,
    atomic::{AtomicUsize as Count, Ordering::SeqCst},
};
use std::sync::{Mutex, PoisonError};

/// The most threads of a model.
const THREADS: usize = 5;

/// Checks a model in all orders, and prints their number; with a bound, only in those with so many preemptions.
///
/// # Panics
/// If the model fails in an order, or has only one order.
#[allow(clippy::print_stderr, reason = "shown with a model that fails")]
#[cfg(test)]
pub(crate) fn check(preemptions: Option<usize>, model: impl Fn() + Send + Sync + 'static) {
    let orders = Arc::new(Count::new(0));
    let counted = Arc::clone(&orders);
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound = preemptions.map(|preemptions| preemptions + more_preemptions());
    builder.max_branches = 10_000;
    builder.check(move || {
        counted.fetch_add(1, SeqCst);
        model();
    });
    let orders = orders.load(SeqCst);
    eprintln!("{orders} orders");
    assert!(orders > 1, "the model has one order only");
}

/// Returns the preemptions that the environment adds to the bounds, for a longer check.
#[cfg(test)]
fn more_preemptions() -> usize {
    let number = std::env::var("MORE_PREEMPTIONS");
    number.map_or(0, |number| number.parse().expect("a number of preemptions"))
}

/// Returns the number of the calling thread: 0, 1, and so on.
fn thread_number() -> usize {
    loom::thread_local! {
        static NUMBER: usize = {
            // The public way to it.
            let text = format!("{:?}", loom::thread::current().id());
            let digits: String = text.chars().filter(char::is_ascii_digit).collect();
            digits.parse().expect("loom's threads have numbers")
        };
    }
    NUMBER.with(|number| *number)
}

/// The last load of a thread since the last change.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Load {
    #[default]
    None,
    Last,
    /// Another thread has loaded since.
    Hidden,
}

/// The marks of threads that have loaded an atomic.
#[derive(Debug)]
struct Marks {
    loads: Mutex<[Load; THREADS]>,
    marks: [loom::sync::atomic::AtomicUsize; THREADS],
}

impl Marks {
    fn new() -> Self {
        Self {
            loads: Mutex::default(),
            marks: std::array::from_fn(|_| loom::sync::atomic::AtomicUsize::new(0)),
        }
    }

    /// Marks a load of the calling thread, which follows.
    fn load(&self) {
        let own = thread_number();
        self.marks[own].store(0, Ordering::Relaxed);
        let mut loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
        for load in loads.iter_mut().filter(|load| **load == Load::Last) {
            *load = Load::Hidden;
        }
        loads[own] = Load::Last;
    }

    /// Touches the marks of hidden loads before a change.
    fn change(&self) {
        let own = thread_number();
        for (number, mark) in self.marks.iter().enumerate() {
            let is_hidden = || {
                let loads = self.loads.lock().unwrap_or_else(PoisonError::into_inner);
                loads[number] == Load::Hidden
            };
            if number != own && is_hidden() {
                mark.fetch_add(1, Ordering::Relaxed);
            }
        }
        *self.loads.lock().unwrap_or_else(PoisonError::into_inner) = Default::default();
    }
}

/// Defines methods that change the value.
macro_rules! changes {
    ($($name:ident($value:ty)),*) => {
        $(
            #[allow(dead_code, reason = "not each type uses each of them")]
            pub(crate) fn $name(&self, value: $value, ordering: Ordering) -> $value {
                self.marks.change();
                self.value.$name(value, ordering)
            }
        )*
    };
}

/// Defines the methods that all atomics have.
macro_rules! common {
    ($value:ty) => {
        pub(crate) fn load(&self, ordering: Ordering) -> $value {
            self.marks.load();
            self.value.load(ordering)
        }

        #[allow(dead_code, reason = "not each type uses each of them")]
        pub(crate) fn store(&self, value: $value, ordering: Ordering) {
            self.marks.change();
            self.value.store(value, ordering);
        }

        #[allow(dead_code, reason = "not each type uses each of them")]
        pub(crate) fn compare_exchange(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.marks.change();
            self.value.compare_exchange(current, new, success, failure)
        }

        #[allow(dead_code, reason = "not each type uses each of them")]
        pub(crate) fn compare_exchange_weak(
            &self,
            current: $value,
            new: $value,
            success: Ordering,
            failure: Ordering,
        ) -> Result<$value, $value> {
            self.marks.change();
            self.value
                .compare_exchange_weak(current, new, success, failure)
        }

        changes!(swap($value));
    };
}

/// Defines atomic numbers.
macro_rules! numbers {
    ($($name:ident($value:ty)),*) => {
        $(
            #[derive(Debug)]
            pub(crate) struct $name {
                value: loom::sync::atomic::$name,
                marks: Marks,
            }

            impl $name {
                pub(crate) fn new(value: $value) -> Self {
                    Self { value: loom::sync::atomic::$name::new(value), marks: Marks::new() }
                }

                common!($value);
                changes!(fetch_add($value), fetch_sub($value), fetch_or($value), fetch_and($value));
            }
        )*
    };
}

numbers!(
    AtomicU8(u8),
    AtomicU32(u32),
    AtomicU64(u64),
    AtomicUsize(usize)
);

#[derive(Debug)]
pub(crate) struct AtomicBool {
    value: loom::sync::atomic::AtomicBool,
    marks: Marks,
}

impl AtomicBool {
    pub(crate) fn new(value: bool) -> Self {
        Self {
            value: loom::sync::atomic::AtomicBool::new(value),
            marks: Marks::new(),
        }
    }

    common!(bool);
}

#[derive(Debug)]
pub(crate) struct AtomicPtr<T> {
    value: loom::sync::atomic::AtomicPtr<T>,
    marks: Marks,
}

impl<T> AtomicPtr<T> {
    pub(crate) fn new(value: *mut T) -> Self {
        Self {
            value: loom::sync::atomic::AtomicPtr::new(value),
            marks: Marks::new(),
        }
    }

    common!(*mut T);
}

#[test]
fn a_store_behind_a_load_of_its_thread_is_tried_before_the_load_of_another() {
    use std::collections::BTreeSet;
    use std::sync::Mutex;
    let seen = Arc::new(Mutex::new(BTreeSet::new()));
    let all = Arc::clone(&seen);
    check(None, move || {
        let value = Arc::new(AtomicBool::new(false));
        let writer = loom::thread::spawn({
            let value = Arc::clone(&value);
            move || {
                let _ = value.load(Ordering::Relaxed);
                value.store(true, Ordering::Relaxed);
            }
        });
        let found = value.load(Ordering::Relaxed);
        writer.join().unwrap();
        all.lock().unwrap().insert(found);
    });
    assert_eq!(*seen.lock().unwrap(), BTreeSet::from([false, true]));
}
