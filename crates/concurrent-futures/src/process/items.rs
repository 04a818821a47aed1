//! The items of a span, as bytes. Some are added while others are on their way.
//!
//! # Protocol
//! The producer of the items pushes them. Tasks of the pool bring them to workers. Each pushed item belongs to
//! one of three:
//!
//! | items | belong to |
//! |---|---|
//! | before `handed` | tasks that were cut off the tail: parts with a fixed number of items |
//! | from `handed` on, while `has_tail` | the *tail*: one task, in the pool's queue or on its way there |
//! | from `handed` on, without a tail | the producer, which submits a tail for them |
//!
//! A push also tells the producer, in one step, whether there is a tail; if not, the producer submits one. So
//! the producer touches the pool only when the pool has run out of items. The thread that takes a tail out of the
//! queue cuts a part off, in one step with counting the items. If no item is left, the tail is gone: the next
//! push needs another.
//!
//! # Invariants
//! 1. There is at most one tail, and a tail in the queue has at least one item.
//! 2. Each item is in one part, or in the tail. A tail that is dropped or fails becomes a part with all of its
//!    items, and ends as such.
//! 3. The bytes of an item never change.

#![forbid(unsafe_code)]

use crate::process::contract::CallSpan;
use crate::runtime::sync::{Arc, Mutex, MutexGuard, lock};
use std::ops::Range;

/// Items of a span, each with its own bytes.
#[derive(Debug)]
pub struct Items(Mutex<Pushed>);

#[derive(Debug, Default)]
struct Pushed {
    bytes: Vec<u8>,
    /// The end of each item.
    ends: Vec<u32>,
    /// The number of items that were cut off.
    handed: u32,
    has_tail: bool,
    /// Whether no more items come.
    is_complete: bool,
}

impl Items {
    /// Makes an empty list of items.
    #[must_use]
    pub fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::new(Pushed::default())))
    }

    fn lock(&self) -> MutexGuard<'_, Pushed> {
        lock(&self.0)
    }

    /// Adds items: their bytes, one behind the other, and the end of each. Takes both. Returns whether the
    /// caller is to submit a task for them.
    ///
    /// All items together have less than 4 GiB, and there are less than 2^24.
    #[must_use]
    pub fn push(&self, bytes: &mut Vec<u8>, ends: &mut Vec<u32>) -> bool {
        let mut pushed = self.lock();
        let start = u32::try_from(pushed.bytes.len()).unwrap_or(u32::MAX);
        pushed.bytes.append(bytes);
        let moved = ends.drain(..).map(|end| start.saturating_add(end));
        pushed.ends.extend(moved);
        let is_new = !pushed.has_tail && pushed.number() > pushed.handed;
        pushed.has_tail |= is_new;
        is_new
    }

    /// Notes that no more items come.
    pub fn complete(&self) {
        self.lock().is_complete = true;
    }

    /// Returns the first item of a tail that is to be submitted.
    fn first_of_tail(&self) -> u32 {
        self.lock().handed
    }

    /// Returns an upper bound of the bytes of a part.
    pub(crate) fn most_bytes(&self) -> usize {
        self.lock().bytes.len()
    }

    /// Returns the number of items of the tail, if more may come.
    pub(crate) fn growing(&self) -> Option<u32> {
        let pushed = self.lock();
        (!pushed.is_complete).then(|| pushed.number() - pushed.handed)
    }

    /// Cuts a part of at most `most` items off the tail. Returns the end of the part, and the end of the rest
    /// of the tail; none if the tail is empty then.
    fn cut(&self, most: u32) -> (u32, Option<u32>) {
        let mut pushed = self.lock();
        let number = pushed.number();
        let end = pushed.handed.saturating_add(most).min(number);
        pushed.handed = end;
        pushed.has_tail = end < number;
        (end, (end < number).then_some(number))
    }

    /// Returns the bytes of some items.
    pub(crate) fn bytes_of(&self, items: &Range<u32>) -> Vec<u8> {
        let pushed = self.lock();
        let place = |item: u32| match item {
            0 => Some(0),
            item => usize::try_from(*pushed.ends.get(item as usize - 1)?).ok(),
        };
        let bytes = place(items.start)
            .zip(place(items.end))
            .and_then(|(start, end)| pushed.bytes.get(start..end));
        bytes.unwrap_or_default().to_vec()
    }
}

impl Pushed {
    fn number(&self) -> u32 {
        u32::try_from(self.ends.len()).unwrap_or(u32::MAX)
    }
}

/// The calls for several items in one task, or the calls that are left of them.
#[derive(Clone, Debug)]
pub(crate) struct Span {
    /// The items. A tail may get more meanwhile.
    pub(crate) items: Range<u32>,
    /// The bytes of the items, if the span may be divided, so that no item waits behind one that takes long.
    /// Then the task's argument is that of a part.
    pub(crate) source: Option<Arc<Items>>,
    /// Whether the span has all further items of the source.
    pub(crate) is_tail: bool,
    /// Whether the task was started, by this part or another.
    pub(crate) has_begun: bool,
}

impl Span {
    pub(crate) fn of_call(span: CallSpan) -> Self {
        match span {
            CallSpan::Whole(items) => Self {
                items: 0..items,
                source: None,
                is_tail: false,
                has_begun: false,
            },
            CallSpan::Tail(source) => {
                let first = source.first_of_tail();
                Self {
                    items: first..first,
                    source: Some(source),
                    is_tail: true,
                    has_begun: first > 0,
                }
            }
        }
    }

    /// Cuts off all but the first `most` items. Returns the items that were cut off, if there are any.
    pub(crate) fn cut(&mut self, most: u32) -> Option<Self> {
        let (middle, end) = match &self.source {
            Some(source) if self.is_tail => source.cut(most),
            _ => {
                let middle = self.items.start.saturating_add(most).min(self.items.end);
                (middle, (middle < self.items.end).then_some(self.items.end))
            }
        };
        let rest = end.map(|end| Self {
            items: middle..end,
            ..self.clone()
        });
        self.items.end = middle;
        self.is_tail = false;
        rest
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn push(items: &Items, all: &[&str]) -> bool {
        let mut bytes = Vec::new();
        let mut ends = Vec::new();
        for each in all {
            bytes.extend_from_slice(each.as_bytes());
            ends.push(u32::try_from(bytes.len()).unwrap());
        }
        let is_new = items.push(&mut bytes, &mut ends);
        assert!(bytes.is_empty() && ends.is_empty());
        is_new
    }

    #[test]
    fn one_tail_is_asked_for_at_a_time() {
        let items = Items::new();
        assert!(!push(&items, &[]));
        assert!(push(&items, &["a"]));
        assert!(!push(&items, &["bc", ""]));
        assert_eq!(items.growing(), Some(3));
        assert_eq!(items.cut(2), (2, Some(3)));
        assert!(!push(&items, &["d"]));
        assert_eq!(items.cut(9), (4, None));
        assert!(push(&items, &["e"]));
        assert_eq!(items.first_of_tail(), 4);
        assert_eq!(items.cut(1), (5, None));
    }

    #[test]
    fn parts_have_the_bytes_of_their_items() {
        let items = Items::new();
        assert!(push(&items, &["a", "bc"]));
        assert!(!push(&items, &["", "def"]));
        let text = |range| String::from_utf8(items.bytes_of(&range)).unwrap();
        assert_eq!(text(0..1), "a");
        assert_eq!(text(1..3), "bc");
        assert_eq!(text(2..4), "def");
        assert_eq!(text(0..4), "abcdef");
        assert_eq!(text(3..9), "");
    }

    #[test]
    fn a_complete_list_of_items_does_not_grow() {
        let items = Items::new();
        assert!(push(&items, &["a"]));
        items.complete();
        assert_eq!(items.growing(), None);
        assert_eq!(items.cut(1), (1, None));
    }
}
