//! The iterators of `map`.

#![forbid(unsafe_code)]

use crate::early::{Decode, EarlyParts, EarlyResults, Next};
use crate::error::{SubmitError, TaskError};
use crate::future::Future;
use std::collections::VecDeque;
use std::fmt;
use std::iter::FusedIterator;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};
use std::vec;

/// The options of `map`.
///
/// # Examples
/// ```
/// use concurrent_futures::{MapOptions, ThreadPoolExecutor};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let options = MapOptions::new().chunksize(100);
/// let squares = pool.map_with(options, |n: u64| n * n, 0..1000)?;
/// assert_eq!(squares.map(Result::unwrap).sum::<u64>(), 332_833_500);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Copy, Debug, Default)]
pub struct MapOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) chunksize: Option<NonZeroUsize>,
}

impl MapOptions {
    /// The default options: one item a task on threads, a number chosen by the executor on processes; no time
    /// limit.
    ///
    /// # Examples
    /// See [`MapOptions`].
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Limits the time for all results, counted from the call of `map`.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{MapOptions, TaskError, ThreadPoolExecutor};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(1).build()?;
    /// let (go, gate) = mpsc::channel::<()>();
    /// let busy = pool.spawn(move || gate.recv())?;
    /// let options = MapOptions::new().timeout(Duration::from_millis(1));
    /// let mut results = pool.map_with(options, |n: u32| n, [1, 2])?;
    /// assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    /// assert!(results.next().is_none());
    /// drop(go);
    /// # drop(busy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Makes one task of each `chunksize` items, which run one after the other; 0 is
    /// the executor's choice. Each item still has its own result.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{MapOptions, ThreadPoolExecutor};
    ///
    /// let pool = ThreadPoolExecutor::new()?;
    /// let options = MapOptions::new().chunksize(2);
    /// let threads = pool.map_with(options, |_| std::thread::current().id(), 0..4)?;
    /// let threads = threads.collect::<Result<Vec<_>, _>>()?;
    /// assert_eq!(threads[0], threads[1]);
    /// assert_eq!(threads[2], threads[3]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    pub fn chunksize(mut self, chunksize: usize) -> Self {
        self.chunksize = NonZeroUsize::new(chunksize);
        self
    }
}

/// The results of `map`, in the order of the items.
///
/// An item is the error of a task whose turn it is; the others are not affected.
/// Dropping the iterator cancels tasks that have not started.
///
/// Source of the semantics: [`Executor.map`][python]. In Rust, an error does not end the iteration.
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Executor.map
///
/// # Examples
/// With [indicatif](https://docs.rs/indicatif), a progress bar is one call:
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
/// use indicatif::ProgressIterator;
///
/// let pool = ThreadPoolExecutor::new()?;
/// let mut sum = 0;
/// for square in pool.map(|n: u64| n * n, 0..10)?.progress() {
///     sum += square?;
/// }
/// assert_eq!(sum, 285);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the results are lost unless they are asked for"]
pub struct Map<T> {
    futures: Futures<T>,
    started: Instant,
    deadline: Option<Instant>,
}

/// Submits the items of a `map` as [`submit_items`] does. Results of a task that has several items may come early:
/// `decode` makes results of the bytes of a part.
///
/// # Errors
/// As for [`submit_items`].
pub fn submit_spans<A, T>(
    options: MapOptions,
    items: impl Iterator<Item = A>,
    chunksize: impl FnOnce(usize) -> usize,
    single: impl FnMut(A) -> Result<Future<T>, SubmitError>,
    decode: impl Fn(Vec<u8>) -> Result<Chunk<T>, TaskError> + Send + Sync + 'static,
    mut span: impl FnMut(Vec<A>, Arc<EarlyParts>) -> Result<Future<Chunk<T>>, SubmitError>,
) -> Result<Map<T>, SubmitError> {
    let given = options.chunksize.map(NonZeroUsize::get);
    let chunksize = given.unwrap_or_else(|| chunksize(items.size_hint().0));
    match NonZeroUsize::new(chunksize) {
        Some(several) if chunksize > 1 => {
            let decode: Decode<T> = Arc::new(decode);
            Map::submit_chunks(options.timeout, several, items, |items| {
                let parts = Arc::new(EarlyParts::default());
                let early = EarlyResults::new(Arc::clone(&parts), Arc::clone(&decode));
                Ok((span(items, parts)?, Some(early)))
            })
        }
        _ => Map::submit(options.timeout, items, single),
    }
}

/// Submits the items of a `map`, alone or several to a task, for executors of other crates. If a task is refused,
/// cancels the others. Without a number of items a task among the options, `chunksize` makes it of the number of items.
///
/// # Errors
/// The error of the task that was refused.
pub fn submit_items<A, T>(
    options: MapOptions,
    items: impl Iterator<Item = A>,
    chunksize: impl FnOnce(usize) -> usize,
    single: impl FnMut(A) -> Result<Future<T>, SubmitError>,
    mut chunk: impl FnMut(Vec<A>) -> Result<Future<Vec<Result<T, TaskError>>>, SubmitError>,
) -> Result<Map<T>, SubmitError> {
    let given = options.chunksize.map(NonZeroUsize::get);
    let chunksize = given.unwrap_or_else(|| chunksize(items.size_hint().0));
    match NonZeroUsize::new(chunksize) {
        Some(several) if chunksize > 1 => {
            Map::submit_chunks(options.timeout, several, items, |items| {
                Ok((chunk(items)?, None))
            })
        }
        _ => Map::submit(options.timeout, items, single),
    }
}

enum Futures<T> {
    Single(vec::IntoIter<Future<T>>),
    Chunks(Chunks<T>),
}

struct Chunks<T> {
    tasks: vec::IntoIter<ChunkTask<T>>,
    /// The current task, until it is done, and the number of its results that were taken.
    open: Option<(ChunkTask<T>, usize)>,
    /// The results of the current task that are there.
    current: vec::IntoIter<Result<T, TaskError>>,
    /// The error of the current task, if it has no more results, and for how many more items the error stands.
    failed: Option<(TaskError, usize)>,
    /// The number of items whose results were not yielded yet.
    left: usize,
}

/// The results of the items of one task.
pub(crate) type Chunk<T> = Vec<Result<T, TaskError>>;

/// A task of several items.
struct ChunkTask<T> {
    future: Future<Chunk<T>>,
    /// None if all results come together.
    early: Option<EarlyResults<T>>,
    /// The number of items.
    items: usize,
}

impl<T> ChunkTask<T> {
    /// Waits for the next results, of which `taken` are known. Returns whether they are the last ones as well.
    fn next(
        &mut self,
        taken: usize,
        deadline: Option<Instant>,
    ) -> (bool, Result<Chunk<T>, TaskError>) {
        if let Some(early) = &mut self.early {
            return match early.next(&mut self.future, taken, deadline) {
                Next::Part(results) => (false, Ok(results)),
                Next::Done(results) => (
                    true,
                    results.map(|mut results| {
                        results.drain(..taken.min(results.len()));
                        results
                    }),
                ),
            };
        }
        (true, self.future.result_until(deadline))
    }
}

impl<T> Map<T> {
    /// Submits all items; if one is refused, cancels the others.
    fn submit<A>(
        timeout: Option<Duration>,
        items: impl Iterator<Item = A>,
        mut submit: impl FnMut(A) -> Result<Future<T>, SubmitError>,
    ) -> Result<Self, SubmitError> {
        let started = Instant::now();
        let mut futures = Vec::with_capacity(items.size_hint().0);
        for item in items {
            match submit(item) {
                Ok(future) => futures.push(future),
                Err(error) => {
                    cancel_all(&futures);
                    return Err(error);
                }
            }
        }
        Ok(Self::new(
            started,
            timeout,
            Futures::Single(futures.into_iter()),
        ))
    }

    /// Submits all items, several to a task; if one is refused, cancels the others.
    fn submit_chunks<A>(
        timeout: Option<Duration>,
        chunksize: NonZeroUsize,
        mut items: impl Iterator<Item = A>,
        mut submit: impl FnMut(
            Vec<A>,
        )
            -> Result<(Future<Chunk<T>>, Option<EarlyResults<T>>), SubmitError>,
    ) -> Result<Self, SubmitError> {
        let started = Instant::now();
        let mut tasks: Vec<ChunkTask<T>> = Vec::new();
        let mut left = 0;
        loop {
            let chunk: Vec<A> = items.by_ref().take(chunksize.get()).collect();
            if chunk.is_empty() {
                break;
            }
            let items = chunk.len();
            left += items;
            match submit(chunk) {
                Ok((future, early)) => tasks.push(ChunkTask {
                    future,
                    early,
                    items,
                }),
                Err(error) => {
                    cancel_all(tasks.iter().map(|task| &task.future));
                    return Err(error);
                }
            }
        }
        let chunks = Chunks {
            tasks: tasks.into_iter(),
            open: None,
            current: Vec::new().into_iter(),
            failed: None,
            left,
        };
        Ok(Self::new(started, timeout, Futures::Chunks(chunks)))
    }

    fn new(started: Instant, timeout: Option<Duration>, futures: Futures<T>) -> Self {
        Self {
            futures,
            started,
            deadline: timeout.and_then(|timeout| started.checked_add(timeout)),
        }
    }

    /// Limits the time for all results, counted from the call of `map`. When the time passes, the item whose
    /// turn it is yields [`TaskError::Timeout`] and is the last; tasks that have not started are cancelled.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(1).build()?;
    /// let (go, gate) = mpsc::channel::<()>();
    /// let busy = pool.spawn(move || gate.recv())?;
    /// let mut results = pool.map(|n: u32| n, [1, 2])?.timeout(Duration::from_millis(1));
    /// assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    /// assert!(results.next().is_none());
    /// drop(go);
    /// # drop(busy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = self.started.checked_add(timeout);
        self
    }

    /// Cancels the tasks that have not started, and forgets the rest.
    fn stop(&mut self) {
        match &mut self.futures {
            Futures::Single(futures) => {
                cancel_all(futures.as_slice());
                *futures = Vec::new().into_iter();
            }
            Futures::Chunks(chunks) => {
                let open = chunks.open.take();
                let open = open.iter().map(|(task, _)| task);
                let tasks = open.chain(chunks.tasks.as_slice());
                cancel_all(tasks.map(|task| &task.future));
                chunks.tasks = Vec::new().into_iter();
                chunks.left = 0;
            }
        }
    }
}

/// Cancels the futures from the last to the first, so that no worker takes a task that would be cancelled a
/// moment later.
fn cancel_all<'a, T: 'a>(
    futures: impl IntoIterator<Item = &'a Future<T>, IntoIter: DoubleEndedIterator>,
) {
    for future in futures.into_iter().rev() {
        future.cancel();
    }
}

impl<T> Chunks<T> {
    fn next(&mut self, deadline: Option<Instant>) -> Option<Result<T, TaskError>> {
        loop {
            if let Some(result) = self.current.next() {
                self.left -= 1;
                if let Some((_, taken)) = &mut self.open {
                    *taken += 1;
                }
                return Some(result);
            }
            if let Some((error, items)) = &mut self.failed {
                if *items > 0 {
                    *items -= 1;
                    self.left -= 1;
                    return Some(Err(error.clone()));
                }
                self.failed = None;
            }
            let open = self.open.take();
            let (mut task, taken) = match open {
                Some(open) => open,
                None => (self.tasks.next()?, 0),
            };
            let (is_last, results) = task.next(taken, deadline);
            match results {
                Ok(results) => self.current = results.into_iter(),
                Err(TaskError::Timeout) => {
                    task.future.cancel();
                    return Some(Err(TaskError::Timeout));
                }
                Err(error) => self.failed = Some((error, task.items.saturating_sub(taken))),
            }
            if !is_last {
                self.open = Some((task, taken));
            }
        }
    }
}

impl<T> Iterator for Map<T> {
    type Item = Result<T, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = match &mut self.futures {
            Futures::Single(futures) => {
                let mut future = futures.next()?;
                let result = future.result_until(self.deadline);
                if matches!(result, Err(TaskError::Timeout)) {
                    future.cancel();
                }
                result
            }
            Futures::Chunks(chunks) => chunks.next(self.deadline)?,
        };
        if matches!(result, Err(TaskError::Timeout)) {
            self.stop();
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let left = match &self.futures {
            Futures::Single(futures) => futures.len(),
            Futures::Chunks(chunks) => chunks.left,
        };
        (left, Some(left))
    }
}

impl<T> ExactSizeIterator for Map<T> {}

impl<T> FusedIterator for Map<T> {}

impl<T> Drop for Map<T> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<T> fmt::Debug for Map<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Map")
            .field("left", &self.len())
            .finish_non_exhaustive()
    }
}

/// The results of `map_buffered`, in the order of the items; takes a further item
/// and submits it for each result that it yields.
///
/// Dropping the iterator cancels tasks that have not started.
///
/// Source of the semantics: `buffersize` of [`Executor.map`][python], which Python has from 3.14 on.
///
/// [python]: https://docs.python.org/3/library/concurrent.futures.html#concurrent.futures.Executor.map
///
/// # Examples
/// ```
/// use concurrent_futures::ThreadPoolExecutor;
///
/// let pool = ThreadPoolExecutor::new()?;
/// let squares = pool.map_buffered(4, |n: u64| n * n, 1..)?;
/// let first: Vec<u64> = squares.take(3).collect::<Result<_, _>>()?;
/// assert_eq!(first, [1, 4, 9]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[must_use = "the results are lost unless they are asked for"]
pub struct BufferedMap<'a, I: Iterator, T> {
    items: I,
    submit: Box<Submit<'a, I::Item, T>>,
    futures: VecDeque<Future<T>>,
    /// The error of a submission that failed; the iterator ends with it.
    refused: Option<SubmitError>,
    started: Instant,
    deadline: Option<Instant>,
    ended: bool,
}

/// Submits one item.
type Submit<'a, A, T> = dyn FnMut(A) -> Result<Future<T>, SubmitError> + 'a;

impl<'a, I: Iterator, T> BufferedMap<'a, I, T> {
    pub(crate) fn new(
        buffersize: usize,
        items: I,
        submit: impl FnMut(I::Item) -> Result<Future<T>, SubmitError> + 'a,
    ) -> Result<Self, SubmitError> {
        let mut this = Self {
            items,
            submit: Box::new(submit),
            futures: VecDeque::new(),
            refused: None,
            started: Instant::now(),
            deadline: None,
            ended: false,
        };
        // With less than one task ahead nothing would ever run.
        for _ in 0..buffersize.max(1) {
            if !this.submit_next() {
                break;
            }
        }
        match this.refused.take() {
            Some(error) => Err(error),
            None => Ok(this),
        }
    }

    fn submit_next(&mut self) -> bool {
        if self.ended {
            return false;
        }
        let Some(item) = self.items.next() else {
            self.ended = true;
            return false;
        };
        match (self.submit)(item) {
            Ok(future) => self.futures.push_back(future),
            Err(error) => {
                self.refused = Some(error);
                self.ended = true;
            }
        }
        !self.ended
    }

    /// Limits the time for all results, counted from the call of `map_buffered`, as
    /// [`Map::timeout`] does.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures::{TaskError, ThreadPoolExecutor};
    /// use std::sync::mpsc;
    /// use std::time::Duration;
    ///
    /// let pool = ThreadPoolExecutor::builder().max_workers(1).build()?;
    /// let (go, gate) = mpsc::channel::<()>();
    /// let busy = pool.spawn(move || gate.recv())?;
    /// let results = pool.map_buffered(1, |n: u32| n, [1, 2])?;
    /// let mut results = results.timeout(Duration::from_millis(1));
    /// assert!(matches!(results.next(), Some(Err(TaskError::Timeout))));
    /// assert!(results.next().is_none());
    /// drop(go);
    /// # drop(busy);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.deadline = self.started.checked_add(timeout);
        self
    }

    fn stop(&mut self) {
        cancel_all(&self.futures);
        self.futures.clear();
        self.refused = None;
        self.ended = true;
    }
}

impl<I: Iterator, T> Iterator for BufferedMap<'_, I, T> {
    type Item = Result<T, TaskError>;

    fn next(&mut self) -> Option<Self::Item> {
        let Some(mut future) = self.futures.pop_front() else {
            return self
                .refused
                .take()
                .map(|error| Err(TaskError::Rejected(error)));
        };
        let result = future.result_until(self.deadline);
        if matches!(result, Err(TaskError::Timeout)) {
            future.cancel();
            self.stop();
        } else {
            self.submit_next();
        }
        Some(result)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let ahead = self.futures.len() + usize::from(self.refused.is_some());
        if self.ended {
            return (ahead, Some(ahead));
        }
        let (low, high) = self.items.size_hint();
        (
            low.saturating_add(ahead),
            high.and_then(|high| high.checked_add(ahead)),
        )
    }
}

impl<I: ExactSizeIterator, T> ExactSizeIterator for BufferedMap<'_, I, T> {}

impl<I: Iterator, T> Drop for BufferedMap<'_, I, T> {
    fn drop(&mut self) {
        self.stop();
    }
}

impl<I: Iterator, T> fmt::Debug for BufferedMap<'_, I, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BufferedMap")
            .field("ahead", &self.futures.len())
            .finish_non_exhaustive()
    }
}
