//! `wait`: blocks until some or all of many futures are done.

use super::Future;
use super::blocking::{NEVER, Stop, wait_in_grace, wait_until_done};
use super::ready::Watched;
use super::state::Phase;
use super::task::TaskRef;
use crate::current;
use crate::deadlock::{self, Escape, Futures, Need, Wait};
use crate::sync::{deadline_after, spin_turns};
use std::iter::zip;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// What [`wait`] waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnWhen {
    /// All futures are done.
    AllCompleted,
    /// At least one future is done.
    FirstCompleted,
    /// At least one task has failed, or all futures are done.
    FirstException,
}

/// What [`wait`] was given, divided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneAndNotDone<F> {
    /// Finished or cancelled, in the order in which they were given.
    pub done: Vec<F>,
    /// The others, in the order in which they were given.
    pub not_done: Vec<F>,
}

mod sealed {
    use crate::future::TaskRef;

    /// What has a task behind it.
    ///
    /// Its method can be called by all who know that a type is [`Waitable`](super::Waitable),
    /// which programs do. The task is not for them, and so the method asks for a [`Seal`].
    ///
    /// # Safety
    /// It is the same task at each call, also after the value was moved, and the task stays as long
    /// as the value does.
    pub unsafe trait HasTask {
        /// That task.
        fn task(&self, seal: Seal) -> &TaskRef;
    }

    /// A token that only the engine has.
    #[derive(Clone, Copy, Debug)]
    pub struct Seal(());

    impl Seal {
        pub(crate) const ENGINE: Self = Self(());
    }
}
pub use sealed::{HasTask, Seal};

/// The task behind a future.
pub(crate) fn task_of<F: HasTask + ?Sized>(future: &F) -> &TaskRef {
    future.task(Seal::ENGINE)
}

/// What [`wait`] and [`as_completed`](super::as_completed) accept: a [`Future`], a
/// reference to one, a pair of anything and one of these, or a box of any.
///
/// Futures of different types can be waited for together as
/// `Box<dyn Waitable>` or `&dyn Waitable`.
pub trait Waitable: HasTask {}

impl<F: HasTask + ?Sized> Waitable for F {}

// SAFETY: a future keeps its task.
unsafe impl<T> HasTask for Future<T> {
    fn task(&self, _: Seal) -> &TaskRef {
        Future::task(self)
    }
}

// SAFETY: as for what it refers to.
unsafe impl<F: HasTask + ?Sized> HasTask for &F {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: as for what it refers to.
unsafe impl<F: HasTask + ?Sized> HasTask for &mut F {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: as for what it refers to.
unsafe impl<F: HasTask + ?Sized> HasTask for Box<F> {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: as for its second part.
unsafe impl<K, F: HasTask> HasTask for (K, F) {
    fn task(&self, seal: Seal) -> &TaskRef {
        self.1.task(seal)
    }
}

/// Waits for futures, of any executors, until `return_when` holds or `timeout`
/// passes, and divides them into those that are done and the others.
///
/// A call that finds what it waits for does nothing but divide. The futures may
/// be given by value or by reference, alone or as pairs with a key.
///
/// On a worker thread, if the futures can never be done because they wait for the
/// calling task, the call returns at once, and asking such a future for its result
/// tells the cycle.
///
/// Source of the semantics: [`concurrent.futures.wait`][python].
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.wait
///
/// # Examples
/// ```
/// use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, promise, wait};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let (_promise, never) = promise();
/// let soon = pool.spawn(|| 1)?;
/// let divided = wait([&never, &soon], None, ReturnWhen::FirstCompleted);
/// assert_eq!(divided.done, [&soon]);
/// assert_eq!(divided.not_done, [&never]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn wait<I>(
    futures: I,
    timeout: Option<Duration>,
    return_when: ReturnWhen,
) -> DoneAndNotDone<I::Item>
where
    I: IntoIterator,
    I::Item: Waitable,
{
    let deadline = timeout.and_then(deadline_after);
    match return_when {
        ReturnWhen::AllCompleted => {
            let futures: Vec<_> = futures.into_iter().collect();
            wait_for_all(&futures, deadline, NEVER);
            divide(futures)
        }
        ReturnWhen::FirstCompleted => wait_first(divide(futures), deadline, |_| true),
        ReturnWhen::FirstException => {
            // SAFETY: the handles are ours, or shared, while we look, so that they take nothing.
            wait_first(divide(futures), deadline, |task| unsafe {
                has_failed(task)
            })
        }
    }
}

/// Blocks until all futures are done, the deadline passes, one of them can never be
/// done, or `stop` says so.
pub fn wait_for_all<F: HasTask>(futures: &[F], deadline: Option<Instant>, stop: Stop<'_>) {
    // One after the other: each is registered with only if it is reached before it is
    // done.
    for future in futures {
        match wait_until_done(task_of(future), deadline, stop) {
            Ok(true) => {}
            Ok(false) | Err(_) => break,
        }
    }
}

fn divide<I>(futures: I) -> DoneAndNotDone<I::Item>
where
    I: IntoIterator,
    I::Item: Waitable,
{
    let futures = futures.into_iter();
    let mut done = Vec::new();
    let mut not_done = Vec::with_capacity(futures.size_hint().0);
    for future in futures {
        if task_of(&future).state().is_done() {
            done.push(future);
        } else {
            not_done.push(future);
        }
    }
    DoneAndNotDone { done, not_done }
}

/// Whether a future that is done has an error; cancelled is none.
///
/// # Safety
/// Nobody takes the outcome meanwhile: the caller borrows the handle, or the face's outcomes stay.
pub unsafe fn has_failed(task: &TaskRef) -> bool {
    // SAFETY: finished; the rest is promised by the caller.
    task.state().phase() == Phase::Finished && !task.taken() && unsafe { task.failed() }
}

/// Waits until one of the futures is done for which `enough` holds, or all are.
fn wait_first<F: Waitable>(
    divided: DoneAndNotDone<F>,
    deadline: Option<Instant>,
    enough: impl Fn(&TaskRef) -> bool,
) -> DoneAndNotDone<F> {
    if divided.not_done.is_empty() || divided.done.iter().any(|done| enough(task_of(done))) {
        return divided;
    }
    wait_for_first(&divided.not_done, deadline, enough, NEVER);
    divide_further(divided)
}

/// Blocks until one of these futures is done for which `enough` holds, all are done,
/// the deadline passes, none of them can ever be done, or `stop` says so.
pub fn wait_for_first<F: HasTask>(
    pending: &[F],
    deadline: Option<Instant>,
    enough: impl Fn(&TaskRef) -> bool,
    stop: Stop<'_>,
) {
    // To register with many takes longer than what is waited for, often: that is why we look
    // at all of them a few times, and register with some at a time.
    let looks = LOOKS / pending.len().max(1);
    let is_enough = |future: &F| task_of(future).state().is_done() && enough(task_of(future));
    if looks < LOOKS && spin_turns(looks, || pending.iter().any(is_enough)) {
        return;
    }
    let mut blocks = pending.chunks(BLOCK).zip((0..).step_by(BLOCK));
    let mut watched = Watched::new();
    let mut found = false;
    let mut left = pending.len();
    let mut reported = vec![false; pending.len()];
    while left > 0 && !found {
        if !watched.has_ready()
            && let Some((block, first)) = blocks.next()
        {
            let report = |index: usize| {
                reported[index] = true;
                left -= 1;
                found |= enough(task_of(&pending[index]));
            };
            // SAFETY: dropped below, while the futures are borrowed.
            unsafe { watched.add(first, block.iter().map(task_of), report) };
            continue;
        }
        let needed: &Futures<'_> = &|f| {
            let mut needed = zip(pending, &reported).filter(|(_, reported)| !**reported);
            needed.any(|(future, _)| f(task_of(future)))
        };
        let Some(index) = next_ready(&mut watched, deadline, needed, stop) else {
            break;
        };
        reported[index] = true;
        left -= 1;
        found = enough(task_of(&pending[index]));
    }
}

/// With how many futures to register before looking whether one is done.
const BLOCK: usize = 64;

/// How many looks at futures take about as long as a thread needs to hand over to another.
const LOOKS: usize = 8192;

/// The next watched future that is done; `None` when the deadline passed, or
/// when a worker could wait forever, for none of `needed` will finish, or when `stop`
/// said so.
pub fn next_ready(
    watched: &mut Watched,
    deadline: Option<Instant>,
    needed: &Futures<'_>,
    stop: Stop<'_>,
) -> Option<usize> {
    current::with_worker(|worker| match worker {
        Some(worker) if !watched.has_ready() => {
            if let ControlFlow::Break(next) = wait_in_grace(deadline, stop, |deadline, stop| {
                watched.next(deadline, || false, stop)
            }) {
                return next;
            }
            let wait = Wait {
                need: Need::Any,
                futures: needed,
                is_timed: deadline.is_some(),
                escape: Escape::Error(watched.signal()),
            };
            // A deadlock ends the wait; whoever asks one of the futures learns the cycle.
            let blocking = deadlock::block(worker, wait).ok()?;
            watched.next(deadline, || blocking.interrupted().is_some(), stop)
        }
        _ => watched.next(deadline, || false, stop),
    })
}

/// Moves what has become done, keeping the order in which futures were given
/// among those that were found together.
fn divide_further<F: Waitable>(divided: DoneAndNotDone<F>) -> DoneAndNotDone<F> {
    let DoneAndNotDone { mut done, not_done } = divided;
    let more = divide(not_done);
    done.extend(more.done);
    DoneAndNotDone {
        done,
        not_done: more.not_done,
    }
}
