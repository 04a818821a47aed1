//! The list of a future: the threads, wakers and sets that wait for the future, and its callbacks.
//!
//! The list is linked through the waiters themselves. Its head is in the word of the future's state; `state.rs`
//! has the protocol by which a thread gets a list to itself.

use crate::runtime::sync::UnsafeCell;
use std::ptr::{self, NonNull};

/// The action on a node when the future is done.
#[derive(Debug)]
pub(crate) enum Action {
    /// Notifies a waiter once the future is done, in no particular order. Calls no foreign code.
    Notify(unsafe fn(NonNull<Node>)),
    /// Wakes a waiter once the future is done. May call foreign code, and so comes after the `Notify` nodes:
    /// their threads may hold what that code waits for.
    Wake(unsafe fn(NonNull<Node>)),
    /// Runs a callback before the future is done, in the order of registration, with a pointer to the
    /// outcome: null if the future was cancelled.
    Callback(unsafe fn(NonNull<Node>, *const ())),
}

/// An entry of a future's list; the first field of every waiter.
#[repr(align(16))]
#[derive(Debug)]
pub(crate) struct Node {
    next: UnsafeCell<*mut Node>,
    action: &'static Action,
}

impl Node {
    pub(crate) fn new(action: &'static Action) -> Self {
        Self {
            next: UnsafeCell::new(ptr::null_mut()),
            action,
        }
    }

    /// # Safety
    /// The caller has the list that the node is in to itself.
    pub(super) unsafe fn next(&self) -> *mut Node {
        // SAFETY: the caller has the node's list to itself, so no other thread writes the link.
        self.next.with(|next| unsafe { *next })
    }

    /// Links the node. Also for lists that a node joins after its notification.
    ///
    /// # Safety
    /// The caller has the node to itself.
    pub(crate) unsafe fn set_next(&self, node: *mut Node) {
        // SAFETY: the caller has the node to itself, so no other thread reads or writes the link.
        self.next.with_mut(|next| unsafe { *next = node });
    }

    /// Takes the node's link.
    ///
    /// # Safety
    /// The caller has the node to itself.
    pub(crate) unsafe fn take_next(&self) -> *mut Node {
        // SAFETY: the caller has the node to itself, so no other thread reads or writes the link.
        self.next
            .with_mut(|next| unsafe { ptr::replace(next, ptr::null_mut()) })
    }
}

/// Divides a list into callbacks and others, each in the order in which they were
/// registered.
///
/// # Safety
/// The caller has the list to itself.
pub(super) unsafe fn divide(mut list: *mut Node) -> (*mut Node, *mut Node) {
    let (mut callbacks, mut waiters) = (ptr::null_mut(), ptr::null_mut());
    // Walking from the newest to the oldest turns both around.
    while let Some(node) = NonNull::new(list) {
        // SAFETY: the caller has the list to itself; a node in a list is alive.
        unsafe {
            list = node.as_ref().next();
            let half = match node.as_ref().action {
                Action::Callback(_) => &mut callbacks,
                Action::Notify(_) | Action::Wake(_) => &mut waiters,
            };
            node.as_ref().set_next(*half);
            *half = node.as_ptr();
        }
    }
    (callbacks, waiters)
}

/// Returns whether a list has callbacks or wakers.
///
/// # Safety
/// The caller has the list to itself.
#[cfg(any(all(feature = "process", unix), all(test, loom_models)))]
pub(super) unsafe fn calls_foreign_code(mut list: *mut Node) -> bool {
    while let Some(node) = NonNull::new(list) {
        // SAFETY: the caller has the list to itself; a node in a list is alive.
        unsafe {
            if !matches!(node.as_ref().action, Action::Notify(_)) {
                return true;
            }
            list = node.as_ref().next();
        }
    }
    false
}

/// Runs the callbacks of a list.
///
/// # Safety
/// The list is the caller's, and its callbacks take `outcome`.
pub(super) unsafe fn run_callbacks(mut list: *mut Node, outcome: *const ()) {
    while let Some(node) = NonNull::new(list) {
        // SAFETY: the caller has the list to itself, and its callbacks take `outcome`. `next` is read before
        // the callback frees its node.
        unsafe {
            list = node.as_ref().take_next();
            if let Action::Callback(run) = node.as_ref().action {
                run(node, outcome);
            }
        }
    }
}

/// Notifies the waiters of a list, which is the caller's: first those that call no foreign code.
pub(super) fn notify_all(mut list: *mut Node) {
    let mut wakers = ptr::null_mut();
    while let Some(node) = NonNull::new(list) {
        // SAFETY: the whole list is ours, and a node stays alive until notified;
        // `next` is read before.
        unsafe {
            list = node.as_ref().take_next();
            match node.as_ref().action {
                Action::Notify(notify) => notify(node),
                Action::Wake(_) => {
                    node.as_ref().set_next(wakers);
                    wakers = node.as_ptr();
                }
                Action::Callback(_) => {}
            }
        }
    }
    while let Some(node) = NonNull::new(wakers) {
        // SAFETY: the list of wakers is this thread's, and its nodes stay alive until notified; `next` is
        // read before.
        unsafe {
            wakers = node.as_ref().take_next();
            if let Action::Wake(wake) = node.as_ref().action {
                wake(node);
            }
        }
    }
}
