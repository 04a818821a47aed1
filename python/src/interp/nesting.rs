//! Drops that lead to further drops of the same kind: the result of a future may be a future, and so on.
//!
//! CPython bounds the depth of such chains by a number of frames of C (10,000 in CPython 3.13). Frames of Rust are larger,
//! without optimization most of all, and a thread may have a small stack. So the depth is bounded here. The contents of
//! an object at [`MAX_DEPTH`] are kept until the outermost drop of the thread is over, which drops them.

use std::any::Any;
use std::cell::{Cell, RefCell};

/// The depth from which on contents are kept.
const MAX_DEPTH: u32 = 50;

thread_local! {
    /// The number of drops that the thread is in.
    static DEPTH: Cell<u32> = const { Cell::new(0) };
    /// The contents that the outermost drop is to drop.
    static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

/// Drops the contents of an object that is being dropped: now, or at the end of the outermost drop.
pub(crate) fn drop_contents<T: Any>(contents: T) {
    let depth = DEPTH.get();
    if depth >= MAX_DEPTH {
        KEPT.with_borrow_mut(|kept| kept.push(Box::new(contents)));
        return;
    }
    DEPTH.set(depth + 1);
    drop(contents);
    if depth == 0 {
        // Each may add others.
        while let Some(contents) = KEPT.with_borrow_mut(Vec::pop) {
            drop(contents);
        }
    }
    DEPTH.set(depth);
}
