//! One thread that waits for many futures, and learns which of them are done.
//!
//! Each awaited future holds an [`Entry`] in its list. When the future is done, the entry is pushed onto the ready
//! list of its [`Watch`], from which the waiting thread takes it. So a future costs one registration, however
//! often the thread waits, and the thread does not look at the other futures again.
//!
//! # Protocol
//! `head` is the newest ready entry, null when there is none, or `PARKED` when there is none and the watching
//! thread sleeps.
//!
//! 1. Pushing is the last access of a finishing thread to the entry and to the watch. If the push replaces
//!    `PARKED`, the thread also notifies the signal, of which it has taken a share before.
//! 2. The watching thread keeps watch and entries until each entry was taken from the ready list or
//!    unregistered.

use crate::future::blocking::{NEVER, Stop};
use crate::runtime::os::signal::{Signal, Woken};
use crate::runtime::spin::Spin;
use crate::runtime::sync::Arc;
use crate::runtime::sync::atomic::{AtomicPtr, Ordering};
use crate::task::TaskRef;
use crate::task::list::{Action, Node};
use crate::task::state::State;
use std::cell::Cell;
use std::fmt;
use std::ptr::{self, NonNull};
use std::time::Instant;

/// A future's entry: first in the future's list, then in the ready list, then taken.
#[repr(C)]
pub(super) struct Entry {
    node: Node,
    watch: NonNull<Watch>,
    /// The state of the future, which is kept as long as this is there.
    state: Cell<Option<NonNull<State>>>,
    index: usize,
    /// Whether the entry is in the ready list, or may come to be there.
    registered: Cell<bool>,
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
    /// # Safety
    /// As the state machine does it: once, with the node of a registered entry.
    unsafe fn push(node: NonNull<Node>) {
        // SAFETY: the node is the first field of an entry; entry and watch are kept
        // until the entry was pushed.
        let (node_ref, watch) = unsafe {
            let watch = node.cast::<Self>().as_ref().watch;
            (node.as_ref(), watch.as_ref())
        };
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
        if newest == parked() {
            // A sleep was left by a panic of what it calls.
            newest = ptr::null_mut();
        }
        let mut chain = ptr::null_mut();
        while let Some(node) = NonNull::new(newest) {
            // SAFETY: nodes that this thread has taken from the ready list belong to this thread.
            unsafe {
                newest = node.as_ref().take_next();
                node.as_ref().set_next(chain);
            }
            chain = node.as_ptr();
        }
        chain
    }

    /// Sleeps until there is a ready entry. Returns false when the deadline passed first, `is_interrupted`
    /// returned true after the signal, or `stop` returned true.
    fn sleep(
        &self,
        deadline: Option<Instant>,
        is_interrupted: impl Fn() -> bool,
        stop: Stop<'_>,
    ) -> bool {
        // ORDERING: Relaxed, here and below: `take` reads the list again, by Acquire.
        let is_empty = || self.head.load(Ordering::Relaxed).is_null();
        if Spin::Thread.until(|| !is_empty()) {
            return true;
        }
        // ORDERING: Release, and Acquire on failure as in `take`.
        let parking = self.head.compare_exchange(
            ptr::null_mut(),
            parked(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        let is_parked = || self.head.load(Ordering::Relaxed) == parked();
        while parking.is_ok() && is_parked() {
            let ends = is_interrupted()
                || self.signal.wait_once(deadline) == Woken::Expired
                // A notification from before may hide that a signal of the system came.
                || is_parked() && stop();
            if ends {
                // Unless an entry comes at this very moment, the list is empty.
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
///
/// Watch and entries are held by raw pointers, as other threads access them too.
pub struct Watched {
    watch: NonNull<Watch>,
    /// The entries, in blocks, so that they stay where they are when others come.
    blocks: Vec<NonNull<[Entry]>>,
    /// The entries that were taken from the ready list, and not yet handed out.
    ready: *mut Node,
}

// SAFETY: the pointers are to what this owns; entries are touched by other threads
// under the protocol only.
unsafe impl Send for Watched {}
// SAFETY: `&Watched` gives access to the head of the ready list only.
unsafe impl Sync for Watched {}

impl Watched {
    /// Makes a set that watches no future yet.
    #[allow(
        clippy::new_without_default,
        reason = "made in two places, for no generic code"
    )]
    pub fn new() -> Self {
        Self {
            watch: NonNull::from(Box::leak(Box::new(Watch::new()))),
            blocks: Vec::new(),
            ready: ptr::null_mut(),
        }
    }

    fn watch(&self) -> &Watch {
        // SAFETY: freed when this is dropped.
        unsafe { self.watch.as_ref() }
    }

    /// Watches futures, under consecutive numbers from `first`. Calls `done` at once for the futures that are
    /// done already.
    ///
    /// # Safety
    /// Each task is kept until it was reported, or [`forget`](Self::forget) was
    /// called for it, or this was dropped.
    pub unsafe fn add<'a>(
        &mut self,
        first: usize,
        tasks: impl Iterator<Item = &'a TaskRef>,
        mut done: impl FnMut(usize),
    ) {
        let mut block = Vec::new();
        for (task, index) in tasks.zip(first..) {
            if task.state().is_done() {
                done(index);
            } else {
                block.push(Entry {
                    node: Node::new(&Action::Notify(Entry::push)),
                    watch: self.watch,
                    state: Cell::new(Some(NonNull::from(task.state()))),
                    index,
                    registered: Cell::new(false),
                });
            }
        }
        if block.is_empty() {
            return;
        }
        let block = NonNull::from(Box::leak(block.into_boxed_slice()));
        self.blocks.push(block);
        for entry in entries(block) {
            // SAFETY: it stays until this is dropped, and the task until then.
            unsafe {
                let (node, entry) = (entry.cast(), entry.as_ref());
                // First, as it may be pushed at once.
                entry.registered.set(true);
                let state = entry.state.get();
                if state.is_some_and(|state| !state.as_ref().register(node)) {
                    entry.registered.set(false);
                    done(entry.index);
                }
            }
        }
    }

    /// Stops watching the future with this number. The number may still be reported, if the future is done at
    /// this moment.
    pub fn forget(&mut self, index: usize) {
        // Numbers rise, within blocks and from block to block.
        for block in self.blocks.iter().rev() {
            // SAFETY: freed when this is dropped.
            let list = unsafe { block.as_ref() };
            if let Ok(place) = list.binary_search_by_key(&index, |entry| entry.index)
                && let Some(pointer) = entries(*block).nth(place)
            {
                return list[place].unregister(pointer);
            }
        }
    }

    /// Returns all entries, with the pointers under which they are registered.
    fn entries(&self) -> impl DoubleEndedIterator<Item = (NonNull<Entry>, &Entry)> {
        let pointers = self.blocks.iter().copied().flat_map(entries);
        // SAFETY: freed when this is dropped.
        pointers.map(|entry| (entry, unsafe { entry.as_ref() }))
    }

    /// Waits for the next watched future that is done, and returns its number. Returns `None` when the
    /// deadline passed first, `is_interrupted` returned true after the [signal](Self::signal), or `stop`
    /// returned true.
    pub fn next(
        &mut self,
        deadline: Option<Instant>,
        is_interrupted: impl Fn() -> bool,
        stop: Stop<'_>,
    ) -> Option<usize> {
        while self.ready.is_null() {
            self.ready = self.watch().take();
            if self.ready.is_null() && !self.watch().sleep(deadline, &is_interrupted, stop) {
                return None;
            }
        }
        let node = NonNull::new(self.ready)?;
        // SAFETY: taken from the ready list, the entry is ours.
        unsafe {
            self.ready = node.as_ref().take_next();
            let entry = node.cast::<Entry>().as_ref();
            entry.registered.set(false);
            Some(entry.index)
        }
    }

    /// Returns the signal that wakes the thread that waits in `next`.
    pub(super) fn signal(&self) -> Arc<Signal> {
        Arc::clone(&self.watch().signal)
    }

    /// Returns the number of a watched future that is done, if one is known to be.
    pub fn next_without_waiting(&mut self) -> Option<usize> {
        self.has_ready().then(|| self.next(None, || true, NEVER))?
    }

    /// Returns whether a future is known to be done without waiting.
    pub fn has_ready(&self) -> bool {
        // ORDERING: Relaxed: `take` reads the list again, by Acquire.
        !self.ready.is_null() || !self.watch().head.load(Ordering::Relaxed).is_null()
    }
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Watched({})", self.entries().count())
    }
}

fn entries(block: NonNull<[Entry]>) -> impl DoubleEndedIterator<Item = NonNull<Entry>> {
    let first = block.cast::<Entry>();
    // SAFETY: inside the block.
    (0..block.len()).map(move |offset| unsafe { first.add(offset) })
}

impl Entry {
    /// Takes the entry out of the future's list, if it is there. If it stays
    /// registered, it is in the ready list or on its way.
    fn unregister(&self, this: NonNull<Self>) {
        let Some(state) = self.state.take().filter(|_| self.registered.get()) else {
            return;
        };
        // SAFETY: registered, and neither taken nor unregistered since; the future
        // is kept until now.
        let unregistered = unsafe { state.as_ref().unregister(this.cast()) };
        self.registered.set(!unregistered);
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        while !self.ready.is_null() {
            self.next(None, || false, NEVER);
        }
        let mut coming = 0_usize;
        // The newest first: a future's list begins with them, also if all entries are of
        // the same future.
        for (pointer, entry) in self.entries().rev() {
            entry.unregister(pointer);
            coming += usize::from(entry.registered.get());
        }
        // Those whose notification is on its way must have arrived before the
        // entries go.
        for _ in 0..coming {
            self.next(None, || false, NEVER);
        }
        // SAFETY: allocated in `add` and `new`; no pointer to them is left.
        unsafe {
            for block in self.blocks.drain(..) {
                drop(Box::from_raw(block.as_ptr()));
            }
            drop(Box::from_raw(self.watch.as_ptr()));
        }
    }
}
