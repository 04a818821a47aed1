//! The queue of pending tasks: many submitters, many workers, first in, first out, no allocation.
//!
//! # Protocol
//! The queue is a linked list through the tasks themselves (`queue_next`). A submitter puts its task in the
//! place of `tail`, then links the former tail to it. A worker takes from `head`, under a lock among workers. A
//! *stub*, represented by null, is the whole list while the queue is empty.
//!
//! `tail` also decides `submit` against `shutdown`: [`close`](Queue::close) sets its lowest bit, and nothing is
//! pushed from then on.
//!
//! # Invariants
//! 1. The list from `head` to `tail` holds the tasks that were pushed and not taken, in order. Every node but
//!    `tail` has a link to the next node. If the link is not there yet, the submitter of the next node writes
//!    it in its second step.
//! 2. A node is taken when it has a link, so that no submitter will touch it. The last node is taken by putting
//!    the stub in its place in `tail`, so that no submitter can touch it.
//! 3. The queue is empty exactly when `tail` is the stub.
//! 4. After `close`, the queue only becomes shorter.
//!
//! The scheme is that of Vyukov's intrusive queue, except for the lock and the bit.

use crate::runtime::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use crate::runtime::sync::{Backoff, Mutex, lock};
use crate::task::TaskRef;
use crate::task::header::Header;
use std::ptr::{self, NonNull};

const CLOSED: usize = 1;

/// Keeps the words of submitters and the words of workers on different cache lines.
#[repr(align(128))]
struct Padded<T>(T);

/// The oldest node, or null for the stub; and the number of tasks that were ever taken.
struct Head(*mut Header, u64);

// SAFETY: the pointer stands for a `TaskRef`, which is `Send`.
unsafe impl Send for Head {}

/// The words of workers.
struct Workers {
    head: Mutex<Head>,
    /// Whether the worker that was last to take a task saw another one after it. Written under the lock.
    has_more: AtomicBool,
}

pub(crate) struct Queue {
    /// The newest node, or null for the stub; and the `CLOSED` bit.
    tail: Padded<AtomicPtr<Header>>,
    head: Padded<Workers>,
    /// The link of the stub.
    stub_next: AtomicPtr<Header>,
}

fn node(tail: *mut Header) -> *mut Header {
    tail.map_addr(|address| address & !CLOSED)
}

fn is_closed(tail: *mut Header) -> bool {
    tail.addr() & CLOSED != 0
}

impl Queue {
    pub(crate) fn new() -> Self {
        Self {
            tail: Padded(AtomicPtr::new(ptr::null_mut())),
            head: Padded(Workers {
                head: Mutex::new(Head(ptr::null_mut(), 0)),
                has_more: AtomicBool::new(false),
            }),
            stub_next: AtomicPtr::new(ptr::null_mut()),
        }
    }

    /// Returns the link of a node.
    ///
    /// # Safety
    /// The node is the stub, or in the queue, or was and has got no link yet.
    unsafe fn link(&self, node: *mut Header) -> &AtomicPtr<Header> {
        // SAFETY: the node is null (the stub), a task in the queue, or a task that was in the queue and has
        // no link yet. Such tasks are alive.
        unsafe { node.as_ref() }.map_or(&self.stub_next, |node| &node.queue_next)
    }

    /// Appends a task. Gives it back when the queue is closed.
    pub(crate) fn push(&self, task: TaskRef) -> Result<(), TaskRef> {
        let new = task.into_raw();
        // ORDERING: Relaxed, here and on failure: the exchange below reads the word again.
        let mut tail = self.tail.0.load(Ordering::Relaxed);
        loop {
            if is_closed(tail) {
                // SAFETY: into_raw above.
                return Err(unsafe { TaskRef::from_raw(new) });
            }
            // ORDERING: SeqCst, for the order against the counts of idle workers;
            // see `idle`. Release publishes the task.
            match self.tail.0.compare_exchange_weak(
                tail,
                new.as_ptr(),
                Ordering::SeqCst,
                Ordering::Relaxed,
            ) {
                Ok(_) => break,
                Err(now) => tail = now,
            }
        }
        // SAFETY: the node that was last is not taken before it has its link.
        let link = unsafe { self.link(tail) };
        // ORDERING: Release publishes the task to the worker that follows the link.
        link.store(new.as_ptr(), Ordering::Release);
        Ok(())
    }

    /// Takes the oldest task.
    pub(crate) fn pop(&self) -> Option<TaskRef> {
        self.pop_counted().map(|(task, _)| task)
    }

    /// Returns the number of tasks that were ever taken.
    pub(crate) fn taken(&self) -> u64 {
        lock(&self.head.0.head).1
    }

    /// Takes the oldest task, and returns it with its number, counted from 1.
    pub(crate) fn pop_counted(&self) -> Option<(TaskRef, u64)> {
        let mut head = lock(&self.head.0.head);
        if head.0.is_null() {
            if self.is_empty() {
                return None;
            }
            head.0 = self.wait_for_link(ptr::null_mut());
        }
        let taken = NonNull::new(head.0)?;
        // SAFETY: the node is in the queue.
        let next = unsafe { self.link(head.0) }.load(Ordering::Acquire);
        head.0 = if !next.is_null() {
            next
        } else if self.take_last(taken.as_ptr()) {
            ptr::null_mut()
        } else {
            self.wait_for_link(taken.as_ptr())
        };
        head.1 += 1;
        // ORDERING: Relaxed: a hint.
        let has_more = !head.0.is_null();
        self.head.0.has_more.store(has_more, Ordering::Relaxed);
        // SAFETY: pushed with `into_raw`, and taken once.
        Some((unsafe { TaskRef::from_raw(taken) }, head.1))
    }

    /// Puts the stub in the place of the last node. Returns false if the node is not the last.
    fn take_last(&self, last: *mut Header) -> bool {
        // ORDERING: Relaxed, published by the exchange below. The submitter that
        // wrote it before has been overtaken long since.
        self.stub_next.store(ptr::null_mut(), Ordering::Relaxed);
        let mut tail = self.tail.0.load(Ordering::Acquire);
        while node(tail) == last {
            let stub = ptr::without_provenance_mut(tail.addr() & CLOSED);
            // ORDERING: AcqRel: the next submitter writes to the stub's link after
            // us. A failure is `close` or a submitter.
            match self
                .tail
                .0
                .compare_exchange_weak(tail, stub, Ordering::AcqRel, Ordering::Acquire)
            {
                Ok(_) => return true,
                Err(now) => tail = now,
            }
        }
        false
    }

    /// Waits for the link of a node that is not the last, and returns the next node.
    fn wait_for_link(&self, before: *mut Header) -> *mut Header {
        let mut backoff = Backoff::default();
        loop {
            // SAFETY: the node is the stub or in the queue.
            // ORDERING: Acquire pairs with the Release in `push`.
            let next = unsafe { self.link(before) }.load(Ordering::Acquire);
            if !next.is_null() {
                return next;
            }
            backoff.snooze();
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        // ORDERING: SeqCst, for the order against the counts of idle workers.
        node(self.tail.0.load(Ordering::SeqCst)).is_null()
    }

    /// Returns whether the queue is empty, for a worker that may be wrong: another worker may have taken the task that
    /// was there. While there are tasks, the word of the submitters is not read. They write it with each task.
    pub(crate) fn seems_empty(&self) -> bool {
        // ORDERING: Relaxed: a hint.
        !self.head.0.has_more.load(Ordering::Relaxed) && self.is_empty()
    }

    /// Returns the number of tasks, counted up to `limit`.
    pub(crate) fn len_up_to(&self, limit: usize) -> usize {
        // While no worker pops, the nodes of the list stay there.
        let head = lock(&self.head.0.head);
        let mut node = head.0;
        if node.is_null() {
            if self.is_empty() {
                return 0;
            }
            node = self.stub_next.load(Ordering::Acquire);
        }
        let mut count = 0;
        while count < limit && !node.is_null() {
            count += 1;
            // SAFETY: the node is in the queue.
            node = unsafe { self.link(node) }.load(Ordering::Acquire);
        }
        count
    }

    /// Returns whether the queue is empty and closed.
    pub(crate) fn is_finished(&self) -> bool {
        // One look at both: of two, a push and the close could come between.
        // ORDERING: Acquire pairs with the Release in `close`. A worker takes the lock of the sleepers before its last
        // look, and the thread that closes takes the lock after `close`. So the look finds the bit, or the worker is
        // woken.
        self.tail.0.load(Ordering::Acquire).addr() == CLOSED
    }

    /// Refuses all further tasks.
    pub(crate) fn close(&self) {
        // ORDERING: Relaxed, here and on failure, as in `push`. Release hands on what came before; Acquire keeps the
        // pushes before the close in order.
        let mut tail = self.tail.0.load(Ordering::Relaxed);
        while let Err(now) = self.tail.0.compare_exchange_weak(
            tail,
            tail.map_addr(|address| address | CLOSED),
            Ordering::AcqRel,
            Ordering::Relaxed,
        ) {
            tail = now;
        }
    }

    pub(crate) fn is_closed(&self) -> bool {
        is_closed(self.tail.0.load(Ordering::Acquire))
    }
}

impl Drop for Queue {
    fn drop(&mut self) {
        // Only tasks that were cancelled are left: the last worker has run the
        // others, or they were never accepted.
        while let Some(task) = self.pop() {
            task.cancel();
        }
    }
}
