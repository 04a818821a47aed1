//! Long buffers of pickled objects, which go beside the pickle in shared memory.
//!
//! Objects that offer their memory to the pickler (protocol 5: mostly arrays) are pickled without their memory, if
//! it is long. All such buffers of a call or a result are in one segment, and arrive where the segment is
//! mapped. The objects made there keep the segment as long as they need it. A *table* before the pickle says
//! where the buffers are:
//!
//! | bytes | |
//! |---|---|
//! | 8 | number of buffers |
//! | 8 + 8 for each | its offset, and its length |
//!
//! The memory of `bytes` objects is no such buffer. If there are long `bytes` among the pickled objects (in
//! simple containers), the pickler writes the pickle into the segment. The receiver makes the `bytes` from
//! there. So they are copied twice on their way, which is the minimum for them. Any other long pickle is
//! copied into a segment, and read where it is mapped. The table is the number [`WHOLE`] then.
//!
//! If there is no segment to be had, buffers are pickled as if they were short.

use crate::interp::{interned, stdlib};
use concurrent_futures::engine::{Attachment, MappedSegment, Segments};
use pyo3::buffer::PyBuffer;
use pyo3::exceptions::{PyMemoryError, PyOSError, PyValueError};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyMemoryView};
use std::ffi::c_int;
use std::io;
use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

/// The length from which on a buffer goes beside the pickle; measured.
const LONG: usize = 128 * 1024;
/// The length from which on `bytes` objects go beside the pickle. They are copied on arrival.
pub(crate) const LONG_BYTES: usize = 256 * 1024;
/// The room for all of a pickle except long `bytes`.
const BESIDES: usize = 64 * 1024;
/// The length in the table that says that the pickle itself is in the segment.
const WHOLE: u64 = u64::MAX;
/// The number of bytes whose copying takes longer than letting other threads run.
const LENGTHY: usize = 1024 * 1024;
/// The alignment of buffers.
const ALIGNMENT: usize = 64;
const WORD: usize = size_of::<u64>();

/// Returns the table before a pickle that is in the segment itself.
pub(crate) fn whole() -> Vec<u8> {
    WHOLE.to_ne_bytes().to_vec()
}

/// Receives each buffer from a pickler, and keeps the long ones.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Collector {
    kept: Mutex<Vec<PyBuffer<u8>>>,
    /// Whether to refuse read-only buffers: before it had protocol 5, `multiprocessing` made writable copies
    /// of them.
    is_strict: bool,
    /// Whether a read-only buffer was refused.
    has_refused: AtomicBool,
}

#[pymethods]
impl Collector {
    /// Returns whether the buffer is to be pickled with the object.
    fn __call__(&self, py: Python<'_>, buffer: &Bound<'_, PyAny>) -> PyResult<bool> {
        // The pickler refuses buffers that are not contiguous.
        let Ok(raw) = buffer.call_method0(interned::raw(py)) else {
            return Ok(true);
        };
        let raw = PyBuffer::get(&raw)?;
        if self.is_strict && raw.readonly() {
            // ORDERING: Relaxed: it is looked at by the thread that pickles, as this is.
            self.has_refused.store(true, Ordering::Relaxed);
            return Err(PyValueError::new_err("the buffer is read-only"));
        }
        if raw.len_bytes() < LONG {
            return Ok(true);
        }
        self.lock().push(raw);
        Ok(false)
    }
}

impl Collector {
    /// Makes a collector, which refuses read-only buffers if `is_strict`.
    pub(crate) fn new(is_strict: bool) -> Self {
        Self {
            kept: Mutex::default(),
            is_strict,
            has_refused: AtomicBool::new(false),
        }
    }

    /// Returns whether the collector has refused a buffer.
    pub(crate) fn has_refused(&self) -> bool {
        self.has_refused.load(Ordering::Relaxed)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<PyBuffer<u8>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the buffers that were kept.
    pub(crate) fn take(&self) -> Vec<PyBuffer<u8>> {
        mem::take(&mut *self.lock())
    }
}

/// Bytes to be copied, which stay at their place meanwhile.
struct Source {
    start: *const u8,
    length: usize,
    place: usize,
}

// SAFETY: the code that makes a `Source` keeps the bytes alive and in place.
unsafe impl Send for Source {}

/// Puts buffers into a segment. Returns it with the table.
///
/// # Errors
/// When there is none to be had.
pub(crate) fn attach(
    py: Python<'_>,
    segments: &Arc<Segments>,
    buffers: &[PyBuffer<u8>],
) -> io::Result<(Attachment, Vec<u8>)> {
    let mut table = (buffers.len() as u64).to_ne_bytes().to_vec();
    let mut end = 0_usize;
    let mut sources = Vec::with_capacity(buffers.len());
    for buffer in buffers {
        let length = buffer.len_bytes();
        sources.push(Source {
            start: buffer.buf_ptr().cast(),
            length,
            place: end,
        });
        table.extend((end as u64).to_ne_bytes());
        table.extend((length as u64).to_ne_bytes());
        end = end
            .checked_add(length)
            .and_then(|end| end.checked_next_multiple_of(ALIGNMENT))
            .ok_or(io::ErrorKind::OutOfMemory)?;
    }
    let attachment = fill(py, segments, end, sources)?;
    Ok((attachment, table))
}

/// Puts bytes into a segment.
///
/// # Errors
/// When there is none to be had.
pub(crate) fn attach_bytes(
    py: Python<'_>,
    segments: &Arc<Segments>,
    bytes: &[u8],
) -> io::Result<Attachment> {
    let source = Source {
        start: bytes.as_ptr(),
        length: bytes.len(),
        place: 0,
    };
    fill(py, segments, bytes.len(), vec![source])
}

fn fill(
    py: Python<'_>,
    segments: &Arc<Segments>,
    length: usize,
    sources: Vec<Source>,
) -> io::Result<Attachment> {
    let copy = move || {
        let mut attachment = segments.allocate(length)?;
        for source in sources {
            // SAFETY: the caller keeps the bytes. Should another thread write to an array
            // meanwhile, some of its bytes are the old ones, and some the new.
            unsafe { attachment.fill(source.place, source.start, source.length) };
        }
        Ok(attachment)
    };
    if length > LENGTHY {
        py.detach(copy)
    } else {
        copy()
    }
}

/// A segment that a pickler writes to, as if it were a file.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct SegmentFile(Mutex<Option<Written>>);

struct Written {
    attachment: Attachment,
    length: usize,
    capacity: usize,
}

#[pymethods]
impl SegmentFile {
    /// Appends bytes.
    fn write(&self, py: Python<'_>, data: &Bound<'_, PyAny>) -> PyResult<usize> {
        let data = PyBuffer::<u8>::get(data)?;
        let source = Source {
            start: data.buf_ptr().cast(),
            length: data.len_bytes(),
            place: 0,
        };
        let length = source.length;
        let append = move || {
            let source = source;
            let mut written = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            let written = written.as_mut()?;
            let end = written.length.checked_add(source.length)?;
            if end > written.capacity {
                return None;
            }
            // SAFETY: the view keeps the bytes.
            unsafe {
                written
                    .attachment
                    .fill(written.length, source.start, source.length);
            }
            written.length = end;
            Some(())
        };
        let appended = if length > LENGTHY {
            py.detach(append)
        } else {
            append()
        };
        appended.ok_or_else(|| PyMemoryError::new_err("the segment is full"))?;
        Ok(length)
    }
}

/// Pickles an object with `weight` bytes in long `bytes` objects into a segment. Returns the segment with the
/// table; none if the pickle does not fit, or there is no segment.
///
/// # Errors
/// The exception that pickling raises.
pub(crate) fn pickle_into(
    object: &Bound<'_, PyAny>,
    weight: usize,
    segments: &Arc<Segments>,
) -> PyResult<Option<(Attachment, Vec<u8>)>> {
    let py = object.py();
    let capacity = weight.saturating_add(BESIDES);
    let Ok(attachment) = segments.allocate(capacity) else {
        return Ok(None);
    };
    let written = Written {
        attachment,
        length: 0,
        capacity,
    };
    let file = Bound::new(py, SegmentFile(Mutex::new(Some(written))))?;
    let pickler = stdlib::pickler(py)?.call1((&file, 5))?;
    match pickler.call_method1(interned::dump(py), (object,)) {
        Ok(_) => {}
        Err(error) if error.is_instance_of::<PyMemoryError>(py) => return Ok(None),
        Err(error) => return Err(error),
    }
    let written = file
        .get()
        .0
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .take();
    Ok(written.map(|mut written| {
        written.attachment.truncate(written.length);
        (written.attachment, whole())
    }))
}

/// A part of a received segment.
#[pyclass(module = "concurrent_futures._engine", frozen)]
pub(crate) struct Buffer {
    memory: Arc<MappedSegment>,
    place: usize,
    length: usize,
}

#[pymethods]
impl Buffer {
    // SAFETY: as the protocol has it: `view` is filled, or an exception is set. The memory stays where it is
    // as long as the object does, which the view has a reference to. The holder of the view may write: no
    // other code reads the memory.
    unsafe fn __getbuffer__(
        this: Bound<'_, Self>,
        view: *mut ffi::Py_buffer,
        flags: c_int,
    ) -> PyResult<()> {
        let buffer = this.get();
        let length = ffi::Py_ssize_t::try_from(buffer.length)?;
        // SAFETY: see above; the part is inside of the memory.
        let filled = unsafe {
            let start = buffer.memory.start().add(buffer.place);
            ffi::PyBuffer_FillInfo(view, this.as_ptr(), start.cast(), length, 0, flags)
        };
        if filled == 0 {
            return Ok(());
        }
        Err(PyErr::fetch(this.py()))
    }
}

/// Returns the out-of-band buffers of a pickle.
///
/// # Errors
/// The exception that says why the buffers failed.
pub(crate) fn received(
    attachment: Option<io::Result<MappedSegment>>,
) -> Result<Option<Arc<MappedSegment>>, PyErr> {
    match attachment {
        None => Ok(None),
        Some(Ok(received)) => Ok(Some(Arc::new(received))),
        Some(Err(error)) => Err(lost(&error)),
    }
}

/// Returns the error of an attachment that could not be received.
pub(crate) fn lost(error: &io::Error) -> PyErr {
    if error.kind() == io::ErrorKind::OutOfMemory {
        return PyMemoryError::new_err(());
    }
    let code = error.raw_os_error().unwrap_or(0);
    PyOSError::new_err((
        code,
        format!("the memory of a long buffer could not be passed between processes: {error}"),
    ))
}

/// Reads the table before a pickle. Returns the buffers, for the unpickler, and the pickle.
///
/// # Errors
/// A table that makes no sense.
pub(crate) fn split<'a, 'py>(
    py: Python<'py>,
    bytes: &'a [u8],
    memory: &'a Arc<MappedSegment>,
) -> PyResult<(Bound<'py, PyList>, &'a [u8])> {
    let garbled = || PyValueError::new_err("the table of buffers is garbled");
    let buffers = PyList::empty(py);
    if bytes == WHOLE.to_ne_bytes() {
        return Ok((buffers, contents(memory)));
    }
    let (count, mut rest) = number(bytes).ok_or_else(garbled)?;
    for _ in 0..count {
        let (place, after) = number(rest).ok_or_else(garbled)?;
        let (length, after) = number(after).ok_or_else(garbled)?;
        let is_inside = place
            .checked_add(length)
            .is_some_and(|end| end <= memory.len());
        if !is_inside {
            return Err(garbled());
        }
        rest = after;
        let memory = Arc::clone(memory);
        let buffer = Buffer {
            memory,
            place,
            length,
        };
        let buffer = Bound::new(py, buffer)?;
        buffers.append(PyMemoryView::from(buffer.as_any())?)?;
    }
    Ok((buffers, rest))
}

fn number(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<WORD>()?;
    Some((usize::try_from(u64::from_ne_bytes(*number)).ok()?, rest))
}

/// Returns the bytes of a long `bytes` object that was received.
pub(crate) fn contents(memory: &MappedSegment) -> &[u8] {
    // SAFETY: `memory` maps `len` bytes from `start` as long as it lives, and no code gets them for writing.
    unsafe { std::slice::from_raw_parts(memory.start(), memory.len()) }
}
