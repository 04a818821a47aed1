//! Bytes of calls that stay where Python has them.

use crate::interp::deferred_drop::release_object;
use concurrent_futures::engine::Argument;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::slice;
use std::sync::Arc;

/// Bytes that stay where Python has them.
struct InPython {
    start: *const u8,
    length: usize,
    object: Option<Py<PyBytes>>,
}

impl Drop for InPython {
    fn drop(&mut self) {
        // The engine may hold a lock, under which no reference is given up.
        if let Some(object) = self.object.take() {
            release_object(object.into_any());
        }
    }
}

// SAFETY: the bytes of a `bytes` object never change, and it is kept.
unsafe impl Send for InPython {}
// SAFETY: the bytes of a `bytes` object never change, and it is kept.
unsafe impl Sync for InPython {}

impl AsRef<[u8]> for InPython {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of the bytes of `object`, which is kept and never changes.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

/// Returns a pickle as the bytes of a call: a copy, or if it is long the object itself.
pub(super) fn argument_of(pickle: &Bound<'_, PyBytes>) -> Argument {
    /// The length up to which copying is cheaper than keeping the object.
    const COPIED: usize = 16 * 1024;
    let bytes = pickle.as_bytes();
    if bytes.len() <= COPIED {
        return Argument::Own(bytes.to_vec());
    }
    Argument::Shared(Arc::new(InPython {
        start: bytes.as_ptr(),
        length: bytes.len(),
        object: Some(pickle.clone().unbind()),
    }))
}
