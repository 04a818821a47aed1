//! Pickles objects for another process.
//!
//! Objects are pickled as `multiprocessing` does it, with the reductions that were registered there or in
//! `copyreg`. For numbers, texts and the like the plain pickler gives the same result, many times faster.

use crate::interp::{interned, stdlib};
use crate::pickle::buffers::{self, Collector};
use crate::pickle::kept_bytes::argument_of;
use crate::pickle::plain_size::{DEPTH, Size};
use crate::pickle::{picklers, unpickling, values};
use concurrent_futures::engine::{Answer, Argument, Attachment, Segments};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use std::sync::Arc;

/// The way in which objects are pickled.
pub(crate) struct Pickling {
    /// Whether `cloudpickle` pickles objects that `pickle` refuses.
    pub(crate) by_value: bool,
    /// The segments for long buffers.
    pub(crate) segments: Arc<Segments>,
}

/// A pickle, and its out-of-band buffers with their table.
struct WithBuffers<'py> {
    pickle: Bound<'py, PyBytes>,
    buffers: Option<(Attachment, Vec<u8>)>,
}

impl Pickling {
    /// Returns the pickle of an object, and its out-of-band buffers. If there are any, the pickle begins with
    /// their table.
    pub(super) fn dumps(
        &self,
        object: &Bound<'_, PyAny>,
    ) -> PyResult<(Argument, Option<Attachment>)> {
        let (WithBuffers { pickle, buffers }, _) = self.pickle(object)?;
        Ok(match buffers {
            None => (argument_of(&pickle), None),
            Some((attachment, mut table)) => {
                table.extend_from_slice(pickle.as_bytes());
                (Argument::Own(table), Some(attachment))
            }
        })
    }

    /// Returns the pickle of an object, by `cloudpickle` if necessary and allowed, and whether the object is
    /// plain.
    fn pickle<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<(WithBuffers<'py>, bool)> {
        let py = object.py();
        if !picklers::is_original(py)? {
            let pickled = self.by_value_or(object, |object| {
                let pickle = picklers::dumps(object)?;
                Ok(WithBuffers {
                    pickle,
                    buffers: None,
                })
            })?;
            return Ok((pickled, false));
        }
        let mut size = Size::default();
        if !size.adds(object, DEPTH + 1) {
            let pickled = self.by_value_or(object, |object| self.with_buffers(object))?;
            return Ok((pickled, false));
        }
        if size.bytes >= buffers::LONG_BYTES
            && let Some(attached) = buffers::pickle_into(object, size.bytes, &self.segments)?
        {
            let pickled = WithBuffers {
                pickle: PyBytes::new(py, &[]),
                buffers: Some(attached),
            };
            return Ok((pickled, true));
        }
        Ok((plain(object).map(|pickle| self.whole(pickle))?, true))
    }

    /// Returns a pickle without out-of-band buffers. A long pickle is in a segment itself.
    fn whole<'py>(&self, pickle: Bound<'py, PyBytes>) -> WithBuffers<'py> {
        let content = pickle.as_bytes();
        if content.len() >= buffers::LONG_BYTES
            && let Ok(attachment) = buffers::attach_bytes(pickle.py(), &self.segments, content)
        {
            return WithBuffers {
                pickle: PyBytes::new(pickle.py(), &[]),
                buffers: Some((attachment, buffers::whole())),
            };
        }
        WithBuffers {
            pickle,
            buffers: None,
        }
    }

    /// Pickles an object, by `cloudpickle` if necessary and allowed.
    fn by_value_or<'py>(
        &self,
        object: &Bound<'py, PyAny>,
        pickle: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<WithBuffers<'py>>,
    ) -> PyResult<WithBuffers<'py>> {
        let py = object.py();
        match pickle(object) {
            Err(error) if self.by_value && error.is_instance_of::<PyException>(py) => {
                let pickle = py
                    .import("cloudpickle")?
                    .call_method1("dumps", (object, stdlib::default_protocol(py)?))?
                    .cast_into::<PyBytes>()?;
                Ok(WithBuffers {
                    pickle,
                    buffers: None,
                })
            }
            pickled => pickled,
        }
    }

    /// Pickles an object as `multiprocessing` does, with long buffers out of band.
    ///
    /// Where its protocol is 4, it makes copies of all buffers, which arrive writable. Protocol 5 has
    /// those that are read-only arrive so. An object with such buffers is pickled by protocol 4 as a
    /// whole, unless that is impossible.
    fn with_buffers<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<WithBuffers<'py>> {
        let py = object.py();
        let is_strict = stdlib::default_protocol(py)?.lt(5)?;
        let mut collector = Bound::new(py, Collector::new(is_strict))?;
        let mut pickled = with_reductions_and(object, Some(collector.as_any()));
        if pickled.is_err() && collector.get().has_refused() {
            let whole = with_reductions(object);
            if let Ok(pickle) = whole {
                return Ok(self.whole(pickle));
            }
            // Its class offers buffers to any protocol.
            collector = Bound::new(py, Collector::new(false))?;
            pickled = with_reductions_and(object, Some(collector.as_any()));
        }
        let pickle = pickled?;
        let buffers = collector.get().take();
        if buffers.is_empty() {
            return Ok(self.whole(pickle));
        }
        match buffers::attach(py, &self.segments, &buffers) {
            Ok(attached) => Ok(WithBuffers {
                pickle,
                buffers: Some(attached),
            }),
            // There is no shared memory, or too much in use: it goes the usual way.
            Err(_) => Ok(WithBuffers {
                pickle: with_reductions(object)?,
                buffers: None,
            }),
        }
    }

    /// Appends the pickle of a result, in the form that `unpickling::value` reads.
    ///
    /// # Errors
    /// The exception that pickling raises.
    pub(crate) fn append_result(
        &self,
        result: &Bound<'_, PyAny>,
        answer: &mut Answer,
    ) -> PyResult<()> {
        if result.is_none() {
            answer.bytes.push(unpickling::NONE);
            return Ok(());
        }
        if picklers::is_original(result.py())? {
            let start = answer.bytes.len();
            answer.bytes.push(unpickling::ATOM);
            if values::append_short_atom(result, &mut answer.bytes) {
                return Ok(());
            }
            answer.bytes.truncate(start);
        }
        let (kind, bytes) = if let Ok(bytes) = result.cast_exact::<PyBytes>() {
            let content = bytes.as_bytes();
            if content.len() >= buffers::LONG_BYTES
                && let Ok(attachment) = buffers::attach_bytes(result.py(), &self.segments, content)
            {
                answer.bytes.push(unpickling::ATTACHED_BYTES);
                answer.attachment = Some(attachment);
                return Ok(());
            }
            (unpickling::BYTES, bytes.clone())
        } else {
            let (pickled, is_plain) = self.pickle(result)?;
            let WithBuffers { pickle, buffers } = pickled;
            match (buffers, is_plain) {
                (None, false) => (unpickling::PICKLED, pickle),
                (None, true) => (unpickling::PLAIN, pickle),
                (Some((attachment, table)), is_plain) => {
                    answer.bytes.push(if is_plain {
                        unpickling::PLAIN_WITH_BUFFERS
                    } else {
                        unpickling::WITH_BUFFERS
                    });
                    answer.bytes.extend_from_slice(&table);
                    answer.bytes.extend_from_slice(pickle.as_bytes());
                    answer.attachment = Some(attachment);
                    return Ok(());
                }
            }
        };
        answer.bytes.push(kind);
        match argument_of(&bytes) {
            Argument::Own(bytes) => answer.bytes.extend_from_slice(&bytes),
            shared @ Argument::Shared(_) => answer.tail = Some(shared),
        }
        Ok(())
    }
}

/// Returns the pickle of an object, made by `pickle.dumps` without reductions of our own.
fn plain<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    let pickle = stdlib::dumps(object.py())?.call1((object, 5))?;
    Ok(pickle.cast_into::<PyBytes>()?)
}

/// Pickles an object as `multiprocessing` does.
fn with_reductions<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
    with_reductions_and(object, None)
}

/// Pickles an object as `multiprocessing` does, with a callback for buffers.
fn with_reductions_and<'py>(
    object: &Bound<'py, PyAny>,
    callback: Option<&Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyBytes>> {
    let py = object.py();
    let buffer = stdlib::bytes_io(py)?.call0()?;
    let pickler = stdlib::original_pickler(py)?;
    let pickler = match callback {
        Some(callback) => pickler.call1((&buffer, 5, true, callback))?,
        None => pickler.call1((&buffer,))?,
    };
    pickler.call_method1(interned::dump(py), (object,))?;
    let pickle = buffer.call_method0(interned::getvalue(py))?;
    Ok(pickle.cast_into::<PyBytes>()?)
}
