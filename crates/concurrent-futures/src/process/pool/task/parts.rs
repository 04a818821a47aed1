//! Spans: tasks for several items of a `map`, which the pool divides into parts.

use crate::process::contract::{self, Argument};
use crate::process::pool::task::Task;
use std::mem;
use std::ops::Range;

impl Task {
    /// Returns the word of the frame's header that names the function, and the items of a span.
    pub(crate) fn place(&self) -> u64 {
        match &self.span {
            None => self.function,
            Some(span) => contract::pack(self.function, &span.items),
        }
    }

    /// Returns the number of items of a part.
    pub(crate) fn items(&self) -> u32 {
        self.span
            .as_ref()
            .map_or(1, |span| span.items.end - span.items.start)
    }

    /// Returns the number of tasks that this task counts as: one for each item, if the items are independent.
    pub(crate) fn weight(&self) -> usize {
        if self.is_of_items() {
            self.items() as usize
        } else {
            1
        }
    }

    /// Returns the range of the task's items. A tail becomes a span of the items that are there.
    pub(super) fn range(&mut self) -> Range<u32> {
        let Some(span) = &mut self.span else {
            return 0..1;
        };
        span.cut(u32::MAX);
        span.items.clone()
    }

    /// Returns the number of items, if the task is a span.
    pub(crate) fn span_items(&self) -> Option<u32> {
        self.span.as_ref().map(|_| self.items())
    }

    /// Returns whether each item of the task has its own bytes.
    pub(crate) fn is_of_items(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.source.is_some())
    }

    /// Returns the number of items so far, if more may come.
    pub(crate) fn growing(&self) -> Option<u32> {
        let span = self.span.as_ref().filter(|span| span.is_tail)?;
        span.source.as_ref()?.growing()
    }

    /// Returns an upper bound of the bytes of the task's argument.
    pub(crate) fn most_bytes(&self) -> usize {
        let source = self.span.as_ref().and_then(|span| span.source.as_ref());
        source.map_or(self.argument.len(), |source| source.most_bytes())
    }

    /// Makes the task a part with at most `most` items, and fetches the part's bytes. Returns the rest.
    pub(crate) fn cut(&mut self, most: u32) -> Option<Self> {
        let span = self.span.as_mut()?;
        let rest = span.cut(most);
        if let Some(source) = &span.source {
            self.argument = Argument::Own(source.bytes_of(&span.items));
        }
        rest.map(|rest| self.rest(rest))
    }

    /// Takes all items but the first few, which stay, out of a part.
    pub(crate) fn split(&mut self, first: u32) -> Option<Self> {
        let rest = self.span.as_mut()?.cut(first)?;
        Some(self.rest(rest))
    }

    /// Returns whether the task belongs to a span that was started, by this part or another.
    pub(super) fn is_part(&self) -> bool {
        self.span.as_ref().is_some_and(|span| span.has_begun)
    }

    /// Returns the place of the task in the order in which tasks start: that of its submission, and of its
    /// first item in a span.
    pub(crate) fn order(&self) -> (u64, u32) {
        let first_item = self.span.as_ref().map_or(0, |span| span.items.start);
        (self.sequence, first_item)
    }

    /// Takes the first items out of a span that was started; some items are left.
    pub(crate) fn take_first(&mut self, items: u32) -> Option<Self> {
        if items == 0 {
            return None;
        }
        let rest = self.split(items)?;
        Some(mem::replace(self, rest))
    }
}
