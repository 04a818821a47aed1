//! An asynchronous task that waits for a future.

use super::state::{Action, Node, State};
use crate::panic::log_panic;
use crate::sync::{Arc, Mutex, lock};
use std::ptr::NonNull;
use std::task::Waker;

/// A waker's entry in the list. Two own it: the handle, and the list until the
/// node is notified or unregistered.
#[repr(C)]
struct WakerNode {
    node: Node,
    waker: Mutex<Option<Waker>>,
}

// SAFETY: the node is changed under the rules of the list only.
unsafe impl Send for WakerNode {}
// SAFETY: as above.
unsafe impl Sync for WakerNode {}

impl WakerNode {
    unsafe fn notify(node: NonNull<Node>) {
        // SAFETY: the node is the first field of an `Arc`'s content; the list's
        // share is given back here.
        let this = unsafe { Arc::from_raw(node.cast::<Self>().as_ptr().cast_const()) };
        let waker = lock(&this.waker).take();
        if let Some(waker) = waker {
            // Foreign code; others of the list have yet to be notified.
            log_panic("a waker panicked", || waker.wake());
        }
    }
}

/// A handle's entry, made when it is first polled.
#[derive(Default)]
pub(super) struct Awaiting(Option<Arc<WakerNode>>);

impl Awaiting {
    /// Returns whether the future is done; otherwise sees to it that `waker` is
    /// woken when it is.
    pub(super) fn poll(&mut self, state: &State, waker: &Waker) -> bool {
        if state.is_done() {
            return true;
        }
        if let Some(entry) = &self.0 {
            let same = |other: &Waker| other.will_wake(waker);
            if !lock(&entry.waker).as_ref().is_some_and(same) {
                // Cloned and dropped outside the lock, as foreign code does both.
                let new = waker.clone();
                let old = lock(&entry.waker).replace(new);
                drop(old);
            }
            // Notified between the two looks, it has taken the old waker.
            return state.is_done();
        }
        let entry = Arc::new(WakerNode {
            node: Node::new(&Action::Notify(WakerNode::notify)),
            waker: Mutex::new(Some(waker.clone())),
        });
        let node = node_of(&entry);
        // The list's share.
        std::mem::forget(Arc::clone(&entry));
        // SAFETY: the list's share keeps the node alive.
        let registered = unsafe { state.register(node) };
        if registered {
            self.0 = Some(entry);
        } else {
            // SAFETY: the list did not take its share.
            drop(unsafe { Arc::from_raw(node.cast::<WakerNode>().as_ptr().cast_const()) });
        }
        !registered
    }

    /// Takes the entry out of the list, if it is there.
    pub(super) fn stop(&mut self, state: &State) {
        let Some(entry) = self.0.take() else {
            return;
        };
        let node = node_of(&entry);
        // SAFETY: registered in `poll`, once. If it is taken out, the list's share
        // is ours to give back; otherwise the notification does.
        unsafe {
            if state.unregister(node) {
                drop(Arc::from_raw(
                    node.cast::<WakerNode>().as_ptr().cast_const(),
                ));
            }
        }
    }
}

fn node_of(entry: &Arc<WakerNode>) -> NonNull<Node> {
    let node = Arc::as_ptr(entry).cast_mut().cast::<Node>();
    // SAFETY: an `Arc`'s pointer is not null.
    unsafe { NonNull::new_unchecked(node) }
}
