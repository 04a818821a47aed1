//! `as_completed`: futures in the order in which they are done.

use crate::deadlock::Futures;
use crate::error::TimeoutError;
use crate::future::blocking::NEVER;
use crate::future::places::Places;
use crate::future::ready::Watched;
use crate::future::wait::{Waitable, next_ready, task_of};
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::time::{Duration, Instant};

/// Yields futures, of any executors, as they are done: those that are done already
/// first, the others in the order in which they finish.
///
/// The futures may be given by value or by reference, alone or as pairs with a
/// key; each comes back as it was given. The iterator registers with each future
/// once, so that all of them together cost time in proportion to their number.
///
/// Source of the semantics: [`concurrent.futures.as_completed`][python].
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.as_completed
///
/// # Examples
/// ```
/// use concurrent_futures::{ThreadPoolExecutor, as_completed};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let mut lengths = Vec::new();
/// for url in ["http://localhost/", "http://localhost/about"] {
///     lengths.push((url, pool.spawn(move || url.len())?));
/// }
/// for (url, length) in as_completed(lengths) {
///     assert_eq!(length.result()?, url.len());
/// }
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn as_completed<I>(futures: I) -> AsCompleted<I::Item>
where
    I: IntoIterator,
    I::Item: Waitable,
{
    let started = Instant::now();
    let mut this = AsCompleted {
        watched: Watched::new(),
        futures: futures.into_iter().map(Some).collect(),
        places: Places::default(),
        done: VecDeque::new(),
        left: 0,
        started,
    };
    this.left = this.futures.len();
    let futures = this.futures.iter().flatten().map(task_of);
    let done = &mut this.done;
    // SAFETY: futures are kept until they were reported, see `next_until`.
    unsafe { this.watched.add(0, futures, |index| done.push_back(index)) };
    this
}

/// Yields futures as they are done; made by [`as_completed`].
///
/// Dropping it drops the futures that are not done, which does not cancel them.
///
/// # Examples
/// ```
/// use concurrent_futures::{ThreadPoolExecutor, as_completed};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let futures = as_completed([pool.spawn(|| 1)?, pool.spawn(|| 2)?]);
/// assert_eq!(futures.size_hint(), (2, Some(2)));
/// let mut sum = 0;
/// for future in futures {
///     sum += future.result()?;
/// }
/// assert_eq!(sum, 3);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct AsCompleted<F: Waitable> {
    // Before the futures: its entries refer to them.
    watched: Watched,
    futures: Vec<Option<F>>,
    /// The places of the futures that were not yielded.
    places: Places,
    /// The futures that were done when they were added, and not yet yielded.
    done: VecDeque<usize>,
    left: usize,
    started: Instant,
}

impl<F: Waitable> AsCompleted<F> {
    /// Adds a future to the set.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{ThreadPoolExecutor, as_completed};
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let mut numbers = as_completed([pool.spawn(|| 3)?]);
    /// while let Some(number) = numbers.next() {
    ///     match number.result()? {
    ///         0 => {}
    ///         n => numbers.push(pool.spawn(move || n - 1)?),
    ///     }
    /// }
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn push(&mut self, future: F) {
        let index = self.futures.len();
        let done = &mut self.done;
        let task = std::iter::once(task_of(&future));
        // SAFETY: as in `as_completed`.
        unsafe { self.watched.add(index, task, |index| done.push_back(index)) };
        self.futures.push(Some(future));
        self.places.push();
        self.left += 1;
    }

    /// Gives back the futures that were not yielded.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{as_completed, promise};
    ///
    /// let (promise_of_first, first) = promise();
    /// let (_promise_of_second, second) = promise();
    /// promise_of_first.set_result(1)?;
    /// let mut futures = as_completed([first, second]);
    /// assert_eq!(futures.next().unwrap().result()?, 1);
    /// let [left] = &futures.into_not_done()[..] else { panic!() };
    /// assert!(left.cancel());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn into_not_done(self) -> Vec<F> {
        let Self {
            watched, futures, ..
        } = self;
        drop(watched);
        futures.into_iter().flatten().collect()
    }

    /// Limits the time, counted from the call of [`as_completed`].
    ///
    /// The items are then results: the first that is not there in time is an
    /// error, and the last item.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{as_completed, promise};
    /// use std::time::Duration;
    ///
    /// let (_promise, never) = promise::<()>();
    /// let mut futures = as_completed([never]).timeout(Duration::from_millis(1));
    /// let error = futures.next().unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "the time limit passed: 1 of 1 futures unfinished");
    /// assert_eq!(futures.into_not_done().len(), 1);
    /// ```
    #[must_use]
    pub fn timeout(self, timeout: Duration) -> AsCompletedTimeout<F> {
        AsCompletedTimeout {
            deadline: self.started.checked_add(timeout),
            futures: self,
            expired: false,
        }
    }

    /// Returns the next future that is done; `None` when the deadline passed.
    fn next_until(&mut self, deadline: Option<Instant>) -> Option<F> {
        loop {
            let index = match self.done.pop_front() {
                Some(index) => index,
                None => self.wait(deadline)?,
            };
            // One that was yielded because of a deadlock may be reported later.
            if let Some(future) = self.futures[index].take() {
                self.places.remove(index);
                self.left -= 1;
                return Some(future);
            }
        }
    }

    /// Waits for the next future. Returns its place.
    fn wait(&mut self, deadline: Option<Instant>) -> Option<usize> {
        let (futures, places) = (&self.futures, &self.places);
        let needed: &Futures<'_> = &|f| {
            let mut futures = places
                .iter(futures)
                .filter_map(|place| futures[place].as_ref());
            futures.any(|future| f(task_of(future)))
        };
        let next = next_ready(&mut self.watched, deadline, needed, NEVER);
        if next.is_none() && deadline.is_none() {
            // A deadlock: any of those left tells the cycle when it is asked.
            let index = places.iter(futures).next()?;
            self.watched.forget(index);
            return Some(index);
        }
        next
    }
}

impl<F: Waitable> Iterator for AsCompleted<F> {
    type Item = F;

    /// Waits for the next future.
    ///
    /// The calling thread may be a worker whose task all remaining futures wait for. Then the iterator yields
    /// these futures although they are not done. Asked for its result, each of them returns an error that
    /// names the cycle.
    fn next(&mut self) -> Option<F> {
        if self.left == 0 {
            return None;
        }
        self.next_until(None)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.left, Some(self.left))
    }
}

impl<F: Waitable> ExactSizeIterator for AsCompleted<F> {}

impl<F: Waitable> fmt::Debug for AsCompleted<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AsCompleted")
            .field("left", &self.left)
            .finish_non_exhaustive()
    }
}

/// Yields futures as they are done, up to a time limit; made by
/// [`AsCompleted::timeout`].
///
/// # Examples
/// See [`AsCompleted::timeout`].
#[derive(Debug)]
pub struct AsCompletedTimeout<F: Waitable> {
    futures: AsCompleted<F>,
    deadline: Option<Instant>,
    expired: bool,
}

impl<F: Waitable> AsCompletedTimeout<F> {
    /// Gives back the futures that were not yielded.
    ///
    /// # Examples
    /// See [`AsCompleted::timeout`].
    #[must_use]
    pub fn into_not_done(self) -> Vec<F> {
        self.futures.into_not_done()
    }
}

impl<F: Waitable> Iterator for AsCompletedTimeout<F> {
    type Item = Result<F, TimeoutError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.expired || self.futures.left == 0 {
            return None;
        }
        let next = self.futures.next_until(self.deadline);
        self.expired = next.is_none();
        Some(next.ok_or(TimeoutError {
            unfinished: self.futures.left,
            total: self.futures.futures.len(),
        }))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        if self.expired {
            return (0, Some(0));
        }
        // A single error stands for all that is late.
        (self.futures.left.min(1), Some(self.futures.left))
    }
}

impl<F: Waitable> FusedIterator for AsCompletedTimeout<F> {}
