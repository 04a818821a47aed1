//! An asynchronous task that waits for a future.

use crate::runtime::sync::{Arc, Mutex, lock};
use crate::task::list::{Action, Node};
use crate::task::panic::{drop_quietly, log_panic};
use crate::task::state::State;
use std::ptr::NonNull;
use std::task::Waker;

/// A waker's entry in the list. It has two owners: the handle, and the list until the node is notified or
/// unregistered.
#[repr(C)]
pub(super) struct WakerNode {
    node: Node,
    waker: Mutex<Option<Waker>>,
}

// SAFETY: the node is changed under the rules of the list only, and the waker under its mutex.
unsafe impl Send for WakerNode {}
// SAFETY: the node is changed under the rules of the list only, and the waker under its mutex.
unsafe impl Sync for WakerNode {}

impl WakerNode {
    /// # Safety
    /// As the state machine does it: once, with the node of a registered entry.
    unsafe fn notify(node: NonNull<Node>) {
        // SAFETY: the node is the first field of an `Arc`'s content; the list's
        // share is given back here.
        let this = unsafe { Arc::from_raw(node.cast::<Self>().as_ptr().cast_const()) };
        let waker = lock(&this.waker).take();
        if let Some(waker) = waker {
            // Foreign code; other wakers of the list have yet to be woken.
            log_panic("a waker panicked", || waker.wake());
        }
    }
}

/// A handle's share of the waker's entry. The share is made when the handle is first polled, and given back by
/// `stop`.
///
/// A pointer instead of an `Arc`, as lints would take a future for a key whose hash can
/// change otherwise.
#[derive(Default)]
pub(super) struct Awaiting(Option<NonNull<WakerNode>>);

impl Awaiting {
    /// Returns whether the future is done. Otherwise registers `waker`, which is woken when the future is
    /// done.
    pub(super) fn poll(&mut self, state: &State, waker: &Waker) -> bool {
        if state.is_done() {
            return true;
        }
        if let Some(entry) = self.0 {
            // SAFETY: our share keeps it alive.
            let registered = unsafe { &entry.as_ref().waker };
            let same = |other: &Waker| other.will_wake(waker);
            if !lock(registered).as_ref().is_some_and(same) {
                // Cloned and dropped outside the lock, as foreign code does both.
                let new = waker.clone();
                let old = lock(registered).replace(new);
                drop(old);
            }
            // Notified between the two looks, it has taken the old waker.
            return state.is_done();
        }
        let entry = Arc::new(WakerNode {
            node: Node::new(&Action::Wake(WakerNode::notify)),
            waker: Mutex::new(Some(waker.clone())),
        });
        let ours = into_pointer(Arc::clone(&entry));
        let listed = into_pointer(entry);
        // SAFETY: the list's share keeps the node alive.
        let registered = unsafe { state.register(listed.cast()) };
        if registered {
            self.0 = Some(ours);
        } else {
            // SAFETY: neither share is used.
            unsafe {
                give_back(ours);
                give_back(listed);
            }
        }
        !registered
    }

    /// Takes the entry out of the list, if it is there.
    pub(super) fn stop(&mut self, state: &State) {
        let Some(entry) = self.0.take() else {
            return;
        };
        // SAFETY: registered in `poll`, once. If it is taken out, the list's share
        // is ours to give back; otherwise the notification does.
        unsafe {
            if state.unregister(entry.cast()) {
                give_back(entry);
            }
            // The waker goes with it, which is foreign code.
            drop_quietly(|| give_back(entry));
        }
    }
}

fn into_pointer(share: Arc<WakerNode>) -> NonNull<WakerNode> {
    // SAFETY: an `Arc`'s pointer is not null.
    unsafe { NonNull::new_unchecked(Arc::into_raw(share).cast_mut()) }
}

/// # Safety
/// The pointer stands for a share, which is given back once.
unsafe fn give_back(share: NonNull<WakerNode>) {
    // SAFETY: the pointer stands for a share, which is given back once: here.
    drop(unsafe { Arc::from_raw(share.as_ptr().cast_const()) });
}
