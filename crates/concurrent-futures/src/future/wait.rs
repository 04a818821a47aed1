//! `wait`: blocks until some or all of many futures are done.

use crate::deadlock::{self, Escape, Futures, Need, Wait};
use crate::future::Future;
use crate::future::blocking::{NEVER, Stop, wait_in_grace, wait_until_done};
use crate::future::driver;
use crate::future::ready::Watched;
use crate::runtime::spin::Spin;
use crate::runtime::sync::deadline_after;
use crate::task::TaskRef;
use crate::task::current;
use crate::task::state::Phase;
use std::iter::zip;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// The condition on which [`wait`] returns: Python's `ALL_COMPLETED`, `FIRST_COMPLETED` and `FIRST_EXCEPTION`.
///
/// # Examples
/// ```
/// use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, promise, wait};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let (_promise, never) = promise();
/// let fails = pool.spawn_fallible(|| "eighty".parse::<u16>())?;
/// let divided = wait([never, fails], None, ReturnWhen::FirstException);
/// assert_eq!((divided.done.len(), divided.not_done.len()), (1, 1));
/// assert!(divided.done[0].exception().is_some());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReturnWhen {
    /// All futures are done.
    AllCompleted,
    /// At least one future is done.
    FirstCompleted,
    /// At least one task has failed, or all futures are done.
    FirstException,
}

/// The futures that were given to [`wait`], divided into done and not done.
///
/// # Examples
/// See [`wait`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DoneAndNotDone<F> {
    /// The futures that are finished or cancelled, in the order in which they were given.
    pub done: Vec<F>,
    /// The other futures, in the order in which they were given.
    pub not_done: Vec<F>,
}

mod sealed {
    use crate::task::TaskRef;

    /// The engine's part of [`Waitable`](super::Waitable): access to the task behind a future.
    ///
    /// Programs know types that are [`Waitable`](super::Waitable), and could call a method of this trait.
    /// The task is not for them, and so the method asks for a [`Seal`].
    ///
    /// # Safety
    /// It is the same task at each call, also after the value was moved, and the task stays as long
    /// as the value does.
    pub unsafe trait HasTask {
        /// Returns the task behind the future.
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

/// Returns the task behind a future.
pub(crate) fn task_of<F: HasTask + ?Sized>(future: &F) -> &TaskRef {
    future.task(Seal::ENGINE)
}

/// A future that [`wait`] and [`as_completed`](super::as_completed) accept. It is a [`Future`], a reference
/// to a future, a pair of anything and a future, or a box of any of these.
///
/// Futures of different types can be waited for together as `Box<dyn Waitable>` or `&dyn Waitable`.
///
/// # Examples
/// ```
/// use concurrent_futures::{ReturnWhen, ThreadPoolExecutor, Waitable, wait};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let number = pool.spawn(|| 42)?;
/// let text = pool.spawn(|| "forty-two")?;
/// let both: [&dyn Waitable; 2] = [&number, &text];
/// assert_eq!(wait(both, None, ReturnWhen::AllCompleted).done.len(), 2);
/// assert!(number.is_done() && text.is_done());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Waitable: HasTask {}

impl<F: HasTask + ?Sized> Waitable for F {}

// SAFETY: a future keeps its task.
unsafe impl<T> HasTask for Future<T> {
    fn task(&self, _: Seal) -> &TaskRef {
        Future::task(self)
    }
}

// SAFETY: the task is that of the inner type, whose implementation keeps the contract.
unsafe impl<F: HasTask + ?Sized> HasTask for &F {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: the task is that of the inner type, whose implementation keeps the contract.
unsafe impl<F: HasTask + ?Sized> HasTask for &mut F {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: the task is that of the inner type, whose implementation keeps the contract.
unsafe impl<F: HasTask + ?Sized> HasTask for Box<F> {
    fn task(&self, seal: Seal) -> &TaskRef {
        (**self).task(seal)
    }
}

// SAFETY: the task is that of the second part, whose implementation keeps the contract.
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
/// On a worker thread, the futures may wait for the calling task, so that they can never be done. Then the
/// call returns at once. Asked for its result, such a future returns an error that names the cycle.
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

/// Blocks until all futures are done, the deadline passes, one of the futures can never be done, or `stop`
/// returns true.
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

/// Returns whether a future that is done has an error. Being cancelled is none.
///
/// # Safety
/// No thread takes the outcome meanwhile: the caller borrows the handle, or the frontend's outcomes stay.
pub unsafe fn has_failed(task: &TaskRef) -> bool {
    // SAFETY: the future is finished and its outcome not taken, and the caller makes sure that no thread
    // takes the outcome meanwhile.
    task.state().phase() == Phase::Finished && !task.taken() && unsafe { task.failed() }
}

/// Waits until one of the futures is done and satisfies `enough`, or all are done.
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

/// Blocks until one of these futures is done and satisfies `enough`, or all are done. The wait also ends when
/// the deadline passes, when none of the futures can ever be done, or when `stop` returns true.
pub fn wait_for_first<F: HasTask>(
    pending: &[F],
    deadline: Option<Instant>,
    enough: impl Fn(&TaskRef) -> bool,
    stop: Stop<'_>,
) {
    // Registering with many futures often takes longer than the awaited event. So the thread looks at all of
    // them a few times first, and then registers with some at a time.
    let looks = LOOKS / pending.len().max(1);
    let is_enough = |future: &F| task_of(future).state().is_done() && enough(task_of(future));
    if looks < LOOKS
        && Spin::Looks(u32::try_from(looks).unwrap_or(u32::MAX))
            .until(|| pending.iter().any(is_enough))
    {
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

/// The number of futures to register with before looking whether one is done.
const BLOCK: usize = 64;

/// The number of looks at futures that take about as long as a hand-over to another thread.
const LOOKS: usize = 8192;

/// Waits for the next watched future that is done. Returns `None` when the deadline passed, when a worker
/// could wait forever because none of `needed` will finish, or when `stop` returned true.
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
            let _sleeping = driver::note_sleep_for_any(needed);
            // A deadlock ends the wait; each of the futures reports the cycle when asked.
            let blocking = deadlock::block(worker, wait).ok()?;
            watched.next(deadline, || blocking.interrupted().is_some(), stop)
        }
        _ => watched.next(deadline, || false, stop),
    })
}

/// Moves the futures that have become done, keeping the order in which futures were given among those that
/// were found together.
fn divide_further<F: Waitable>(divided: DoneAndNotDone<F>) -> DoneAndNotDone<F> {
    let DoneAndNotDone { mut done, not_done } = divided;
    let more = divide(not_done);
    done.extend(more.done);
    DoneAndNotDone {
        done,
        not_done: more.not_done,
    }
}
