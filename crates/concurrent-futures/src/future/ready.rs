//! One thread that waits for many futures, and learns which of them are done.
//!
//! Each future that is waited for holds an [`Entry`] in its list. When it is
//! done, the entry is pushed onto the ready list of its [`Watch`], from which the
//! waiting thread takes it: a future costs one registration, however often the
//! thread waits, and nobody looks at the others again.
//!
//! # Protocol
//! `head` is the newest ready entry, null when there is none, or `PARKED` when
//! there is none and the watching thread sleeps.
//!
//! 1. Pushing is the last access of a finishing thread to the entry and to the
//!    watch. If the push replaces `PARKED`, it also notifies the signal, of which
//!    it has taken a share before.
//! 2. The watching thread keeps watch and entries until each entry was taken from
//!    the ready list or unregistered.

use super::state::{Action, Node};
use super::task::TaskRef;
use crate::sync::atomic::{AtomicPtr, Ordering};
use crate::sync::{Arc, Signal, spin_until};
use std::pin::Pin;
use std::ptr::{self, NonNull};
use std::time::Instant;

/// A future's entry: in its list, then in the ready list, then taken.
#[repr(C)]
pub(super) struct Entry {
    node: Node,
    watch: *const Watch,
    task: TaskRef,
    pub(super) index: usize,
    /// Whether the entry may still be pushed; the watching thread's.
    registered: bool,
}

/// The ready list.
pub(super) struct Watch {
    head: AtomicPtr<Node>,
    signal: Arc<Signal>,
}

fn parked() -> *mut Node {
    // Not aligned as a node is, hence no node's address.
    ptr::without_provenance_mut(1)
}

impl Entry {
    unsafe fn push(node: NonNull<Node>) {
        // SAFETY: the node is the first field of an entry; entry and watch are kept
        // until the entry was pushed.
        let (node_ref, watch) = unsafe { (node.as_ref(), &*node.cast::<Self>().as_ref().watch) };
        // ORDERING: Acquire, to see the signal's preparation before `PARKED`.
        let mut head = watch.head.load(Ordering::Acquire);
        loop {
            let signal = (head == parked()).then(|| Arc::clone(&watch.signal));
            let next = if head == parked() {
                ptr::null_mut()
            } else {
                head
            };
            // SAFETY: notified, the node is ours until it is pushed.
            unsafe { node_ref.set_next(next) };
            // ORDERING: Release publishes `next`, and that our accesses are over.
            match watch.head.compare_exchange_weak(
                head,
                node.as_ptr(),
                Ordering::AcqRel,
                Ordering::Acquire,
            ) {
                Ok(_) => {
                    if let Some(signal) = signal {
                        signal.notify();
                    }
                    return;
                }
                Err(now) => head = now,
            }
        }
    }
}

impl Watch {
    fn new() -> Self {
        Self {
            head: AtomicPtr::new(ptr::null_mut()),
            signal: Arc::new(Signal::new()),
        }
    }

    /// Takes the ready entries, the oldest first, as a chain of nodes.
    fn take(&self) -> *mut Node {
        // ORDERING: Acquire pairs with the pushes' Release.
        let mut newest = self.head.swap(ptr::null_mut(), Ordering::Acquire);
        let mut chain = ptr::null_mut();
        while let Some(node) = NonNull::new(newest) {
            // SAFETY: what was taken from the ready list is ours.
            unsafe {
                newest = node.as_ref().take_next();
                node.as_ref().set_next(chain);
            }
            chain = node.as_ptr();
        }
        chain
    }

    /// Sleeps until there is a ready entry. False when the deadline passed first.
    fn sleep(&self, deadline: Option<Instant>) -> bool {
        let is_empty = || self.head.load(Ordering::Relaxed).is_null();
        if spin_until(|| !is_empty()) {
            return true;
        }
        // ORDERING: Release, and Acquire on failure as in `take`.
        let parking = self.head.compare_exchange(
            ptr::null_mut(),
            parked(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        while parking.is_ok() && self.head.load(Ordering::Relaxed) == parked() {
            if !self.signal.wait(deadline) {
                // Unless an entry comes at this very moment, nobody has come.
                return self
                    .head
                    .compare_exchange(
                        parked(),
                        ptr::null_mut(),
                        Ordering::AcqRel,
                        Ordering::Acquire,
                    )
                    .is_err();
            }
        }
        true
    }
}

/// The futures that one thread watches.
pub(super) struct Watched {
    watch: Pin<Box<Watch>>,
    /// In blocks, so that entries stay where they are when others come.
    blocks: Vec<Box<[Entry]>>,
    /// Taken from the ready list, and not yet handed out.
    ready: *mut Node,
}

// SAFETY: the raw pointers point into what this owns; entries are touched by
// other threads under the protocol only.
unsafe impl Send for Watched {}
// SAFETY: `&Watched` gives access to nothing.
unsafe impl Sync for Watched {}

impl Watched {
    pub(super) fn new() -> Self {
        Self {
            watch: Box::pin(Watch::new()),
            blocks: Vec::new(),
            ready: ptr::null_mut(),
        }
    }

    /// Watches futures, under consecutive numbers from `first`. Those that are
    /// done already are told to `done` at once.
    pub(super) fn add<'a>(
        &mut self,
        first: usize,
        tasks: impl Iterator<Item = &'a TaskRef>,
        mut done: impl FnMut(usize),
    ) {
        let mut block: Box<[Entry]> = tasks
            .zip(first..)
            .map(|(task, index)| Entry {
                node: Node::new(Action::Notify(Entry::push)),
                watch: &raw const *self.watch,
                task: task.clone(),
                index,
                registered: false,
            })
            .collect();
        let entries = block.as_mut_ptr();
        for offset in 0..block.len() {
            // SAFETY: inside the block. The entry is written before it is
            // registered, and from then on only read.
            unsafe {
                let entry = entries.add(offset);
                (*entry).registered = true;
                let node = NonNull::new_unchecked(entry).cast::<Node>();
                if !(*entry).task.state().register(node) {
                    (*entry).registered = false;
                    done((*entry).index);
                }
            }
        }
        self.blocks.push(block);
    }

    /// Waits for the next watched future that is done, and returns its number;
    /// `None` when the deadline passed first.
    pub(super) fn next(&mut self, deadline: Option<Instant>) -> Option<usize> {
        while self.ready.is_null() {
            self.ready = self.watch.take();
            if self.ready.is_null() && !self.watch.sleep(deadline) {
                return None;
            }
        }
        let node = NonNull::new(self.ready)?;
        // SAFETY: taken from the ready list, the entry is ours.
        unsafe {
            self.ready = node.as_ref().take_next();
            let entry = node.cast::<Entry>().as_ptr();
            (*entry).registered = false;
            Some((*entry).index)
        }
    }

    /// Whether a future is known to be done without waiting.
    pub(super) fn has_ready(&self) -> bool {
        !self.ready.is_null() || !self.watch.head.load(Ordering::Relaxed).is_null()
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        // Those whose notification is on its way must have arrived before the
        // entries go.
        let mut coming = 0_usize;
        while let Some(node) = NonNull::new(self.ready) {
            // SAFETY: taken from the ready list, the entry is ours.
            unsafe {
                self.ready = node.as_ref().take_next();
                (*node.cast::<Entry>().as_ptr()).registered = false;
            }
        }
        for entry in self
            .blocks
            .iter()
            .flatten()
            .filter(|entry| entry.registered)
        {
            // SAFETY: registered, and neither taken nor unregistered since.
            if !unsafe { entry.task.state().unregister(NonNull::from(entry).cast()) } {
                coming += 1;
            }
        }
        while coming > 0 && self.next(None).is_some() {
            coming -= 1;
        }
    }
}
