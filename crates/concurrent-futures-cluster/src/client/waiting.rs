//! The tasks that were never published, in little memory.
//!
//! A client may have far more tasks than the server has room for. Such a task has no attempt, no holder and no place on the
//! server. So it is a [`Waiting`], and becomes an [`Entry`] when it is published, or leaves otherwise. Tasks of kept
//! sessions are entries from the beginning, as all of them go to the server.
//!
//! # Invariants
//! 1. A task is in this queue or among the entries of the client, and never in both.
//! 2. The order is that of the submissions, whatever the numbers are.
//! 3. The numbers of a block are from its `lowest` to its `bound`. No block before it has had a number above its `bound`.
//!    So bounds never fall from block to block, and a number is in no block whose bound is below it.
//! 4. While `is_ascending`, no task has a lower number than one before it. Then a number can be in one block only: the
//!    first one whose bound is not below it.
//! 5. The first block has tasks, unless the queue has none. Then there is one block at most, without places.
//!
//! Numbers come almost in order, as futures get them shortly before their submission. Only the time to find a
//! task depends on that.

#![forbid(unsafe_code)]

use super::{Argument, CallKind, Entry, Request, Sink};
use concurrent_futures::engine::Permit;
use std::collections::VecDeque;
use std::sync::Arc;

/// The number of tasks that share a piece of memory. A piece is freed when its last task has left.
pub(super) const BLOCK: usize = 64;

/// A task that was never published.
pub(super) struct Waiting {
    pub(super) number: u64,
    pub(super) kind: Arc<CallKind>,
    pub(super) argument: Argument,
    pub(super) sink: Box<dyn Sink>,
    pub(super) permit: Option<Permit>,
}

impl Waiting {
    pub(super) fn into_entry(self) -> Entry {
        let request = Request::of(self.kind, self.argument.into());
        Entry::new(Arc::new(request), self.sink, self.permit)
    }
}

/// Neighbours in the queue.
struct Block {
    /// The places of tasks; none of those that have left.
    tasks: Vec<Option<Waiting>>,
    /// The first place that may have a task.
    first: usize,
    /// The number of tasks.
    count: usize,
    lowest: u64,
    bound: u64,
}

impl Block {
    fn new(bound: u64) -> Self {
        Self {
            tasks: Vec::with_capacity(BLOCK),
            first: 0,
            count: 0,
            lowest: u64::MAX,
            bound,
        }
    }

    fn place_of(&self, number: u64) -> Option<usize> {
        if number < self.lowest || self.bound < number {
            return None;
        }
        let is_it =
            |task: &Option<Waiting>| task.as_ref().is_some_and(|task| task.number == number);
        // That of consecutive numbers.
        let likely = usize::try_from(number - self.lowest).ok();
        let likely = likely.filter(|place| self.tasks.get(*place).is_some_and(is_it));
        likely.or_else(|| self.tasks.iter().position(is_it))
    }

    /// Returns the first place with a task.
    fn first(&mut self) -> Option<usize> {
        while self.tasks.get(self.first).is_some_and(Option::is_none) {
            self.first += 1;
        }
        (self.first < self.tasks.len()).then_some(self.first)
    }
}

/// The tasks that were never published, in the order of their submission.
pub(super) struct WaitingQueue {
    blocks: VecDeque<Block>,
    count: usize,
    is_ascending: bool,
}

impl Default for WaitingQueue {
    fn default() -> Self {
        Self {
            blocks: VecDeque::new(),
            count: 0,
            is_ascending: true,
        }
    }
}

impl WaitingQueue {
    pub(super) fn len(&self) -> usize {
        self.count
    }

    pub(super) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a task at the end.
    pub(super) fn push(&mut self, task: Waiting) {
        let bound = self.blocks.back().map_or(0, |block| block.bound);
        if self
            .blocks
            .back()
            .is_none_or(|block| block.tasks.len() == BLOCK)
        {
            self.blocks.push_back(Block::new(bound));
        }
        if let Some(block) = self.blocks.back_mut() {
            self.is_ascending &= bound <= task.number;
            block.lowest = block.lowest.min(task.number);
            block.bound = bound.max(task.number);
            block.tasks.push(Some(task));
            block.count += 1;
            self.count += 1;
        }
    }

    /// Returns the first task.
    pub(super) fn first(&mut self) -> Option<&Waiting> {
        let block = self.blocks.front_mut()?;
        let place = block.first()?;
        block.tasks[place].as_ref()
    }

    /// Takes the first task.
    pub(super) fn pop(&mut self) -> Option<Waiting> {
        let place = self.blocks.front_mut()?.first()?;
        self.take((0, place))
    }

    pub(super) fn contains(&self, number: u64) -> bool {
        self.find(number).is_some()
    }

    /// Takes a task out, wherever it is.
    pub(super) fn remove(&mut self, number: u64) -> Option<Waiting> {
        let place = self.find(number)?;
        self.take(place)
    }

    /// Returns the numbers of the tasks, in their order.
    pub(super) fn numbers(&self) -> impl Iterator<Item = u64> {
        let tasks = self.blocks.iter().flat_map(|block| &block.tasks);
        tasks.flatten().map(|task| task.number)
    }

    /// Returns how many places for tasks have memory.
    #[cfg(test)]
    pub(super) fn places(&self) -> usize {
        let places = self.blocks.iter().map(|block| block.tasks.capacity());
        places.sum()
    }

    /// Returns the block of a task, and the place there.
    fn find(&self, number: u64) -> Option<(usize, usize)> {
        let first = self.blocks.partition_point(|block| block.bound < number);
        let end = if self.is_ascending {
            self.blocks.len().min(first + 1)
        } else {
            self.blocks.len()
        };
        (first..end).find_map(|block| Some((block, self.blocks[block].place_of(number)?)))
    }

    fn take(&mut self, (index, place): (usize, usize)) -> Option<Waiting> {
        let block = self.blocks.get_mut(index)?;
        let task = block.tasks.get_mut(place)?.take()?;
        block.count -= 1;
        self.count -= 1;
        if block.count == 0 && index > 0 {
            block.tasks = Vec::new();
            block.first = 0;
        }
        while self.blocks.len() > 1 && self.blocks[0].count == 0 {
            self.blocks.pop_front();
        }
        if self.count == 0 {
            // The memory of one block stays for the next task.
            if let Some(block) = self.blocks.front_mut() {
                block.tasks.clear();
                block.first = 0;
                block.lowest = u64::MAX;
                block.bound = 0;
            }
            self.is_ascending = true;
        }
        Some(task)
    }
}

impl IntoIterator for WaitingQueue {
    type Item = Waiting;
    type IntoIter = Box<dyn Iterator<Item = Waiting> + Send>;

    fn into_iter(self) -> Self::IntoIter {
        Box::new(
            self.blocks
                .into_iter()
                .flat_map(|block| block.tasks.into_iter().flatten()),
        )
    }
}
