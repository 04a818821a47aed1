//! Long bytes that Python code gets without a copy.

use bytes::{Bytes, BytesMut};
use pyo3::buffer::PyBuffer;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::ffi::c_int;
use std::slice;

/// The alignment of the bytes, for arrays that are made around them.
const ALIGNMENT: usize = 16;

/// Long bytes, which the holder of a view of them may change.
#[pyclass(module = "concurrent_futures_cluster._native", frozen)]
pub(crate) struct Content {
    start: *mut u8,
    /// The memory of the bytes, which stays where it is.
    memory: BytesMut,
}

// SAFETY: the pointer is to the memory that is beside it. Only views use it: their holders see to it that no two threads
// write there at once, as with all buffers of Python.
unsafe impl Send for Content {}
// SAFETY: see above.
unsafe impl Sync for Content {}

impl Content {
    /// Makes the content of bytes. They are copied if others share them.
    pub(crate) fn new(bytes: Bytes) -> Self {
        let mut memory = match bytes.try_into_mut() {
            Ok(memory) if memory.as_ptr().addr().is_multiple_of(ALIGNMENT) => memory,
            Ok(memory) => BytesMut::from(&memory[..]),
            Err(shared) => BytesMut::from(&shared[..]),
        };
        Self {
            start: memory.as_mut_ptr(),
            memory,
        }
    }
}

#[pymethods]
impl Content {
    fn __len__(&self) -> usize {
        self.memory.len()
    }

    // SAFETY: as the protocol has it: `view` is filled, or an exception is set. The memory stays where it is
    // as long as the object does, which the view has a reference to. No Rust code reads the memory.
    unsafe fn __getbuffer__(
        this: &Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let content = this.get();
        let length = ffi::Py_ssize_t::try_from(content.memory.len())?;
        // SAFETY: see above.
        let filled = unsafe {
            let start = content.start.cast();
            ffi::PyBuffer_FillInfo(view, this.as_ptr(), start, length, 0, flags)
        };
        if filled == 0 {
            return Ok(());
        }
        Err(PyErr::fetch(this.py()))
    }
}

/// Returns bytes as an object of Python: a copy, or a [`Content`] from this length on.
pub(crate) fn object_of(py: Python<'_>, bytes: Bytes, long: usize) -> PyResult<Bound<'_, PyAny>> {
    if bytes.len() < long {
        return Ok(PyBytes::new(py, &bytes).into_any());
    }
    Ok(Bound::new(py, Content::new(bytes))?.into_any())
}

/// A part of a buffer's memory, which the buffer keeps.
struct Piece(*const u8, usize);

// SAFETY: the memory is that of a buffer, and any thread may read it.
unsafe impl Send for Piece {}

/// Joins the pieces of a frame, while other threads of Python run.
pub(crate) fn joined(outcome: &Bound<'_, PyAny>) -> PyResult<Bytes> {
    let buffers: Vec<PyBuffer<u8>> = outcome.extract()?;
    let pieces: Vec<Piece> = buffers
        .iter()
        .map(|buffer| Piece(buffer.buf_ptr().cast(), buffer.len_bytes()))
        .collect();
    let length = pieces.iter().map(|piece| piece.1).sum();
    let join = move || {
        let mut joined = Vec::with_capacity(length);
        for piece in pieces {
            let Piece(start, length) = piece;
            // SAFETY: the buffer keeps the memory, which is contiguous, and no code of this process writes to it.
            joined.extend_from_slice(unsafe { slice::from_raw_parts(start, length) });
        }
        joined
    };
    Ok(outcome.py().detach(join).into())
}
