//! The elements of a set, without a reference to each.
//!
//! `wait` walks the same futures again and again, and then does little but this. Public iteration takes and drops
//! a reference to each element, and branches on each empty entry of the table, which is mispredicted too often.
//! Here the elements of some entries are gathered first, without a branch: `wait` for the first of 10,000 futures
//! takes a third of the time.
//!
//! The table is read as CPython's headers have declared it up to 3.14 (`PySetObject`). From 3.15 on, the set is
//! iterated by the public interface.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PySet;
use std::{ptr, slice};

/// The number of entries whose elements are gathered at a time.
const AT_A_TIME: usize = 128;

/// Calls `f` with each element, in the order of the set's table, until `f` returns none. Returns none then.
///
/// # Safety
/// The set stays as it is meanwhile.
#[inline]
pub(crate) unsafe fn for_each<'py>(
    set: &Bound<'py, PySet>,
    mut f: impl FnMut(Borrowed<'_, 'py, PyAny>) -> Option<()>,
) -> Option<()> {
    let py = set.py();
    if py.version_info() >= (3, 15) {
        return set.iter().try_for_each(|element| f(element.as_borrowed()));
    }
    let mut elements = [ptr::null_mut(); AT_A_TIME];
    // SAFETY: the set stays as it is meanwhile, and the version has this table.
    for entries in unsafe { entries(set) }.chunks(AT_A_TIME) {
        let mut count = 0;
        for entry in entries {
            elements[count % AT_A_TIME] = entry.key;
            count += usize::from(is_element(entry));
        }
        for element in &elements[..count] {
            // SAFETY: attached; the set keeps the element.
            f(unsafe { Borrowed::from_ptr(py, *element) })?;
        }
    }
    Some(())
}

/// Returns the table of a set.
///
/// # Safety
/// The set stays as it is until the table is gone. The version of CPython is older than 3.15.
unsafe fn entries<'a>(set: &'a Bound<'_, PySet>) -> &'a [ffi::setentry] {
    let set = set.as_ptr().cast::<ffi::PySetObject>();
    // SAFETY: attached; the object is a set, whose table has `mask + 1` entries.
    unsafe {
        let length = usize::try_from((*set).mask).unwrap_or(0) + 1;
        slice::from_raw_parts((*set).table, length)
    }
}

/// Returns whether an entry is an element: neither empty, nor the mark of a removed element, whose hash no
/// object has.
fn is_element(entry: &ffi::setentry) -> bool {
    !entry.key.is_null() && entry.hash != -1
}
