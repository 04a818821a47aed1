//! Pickles calls for another process: a function, which is defined if possible, and its arguments.

use crate::pickle::definitions::{Defined, Functions};
use crate::pickle::objects::Pickling;
use crate::pickle::plain_size::{DEPTH, Size};
use crate::pickle::{picklers, replies};
use concurrent_futures::engine::{Argument, Attachment, Definition};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::sync::Arc;

/// The content of a pickle.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Tag {
    /// The arguments. The function is defined separately.
    Arguments = 0,
    /// Arguments and keywords. The function is defined separately.
    Keywords = 1,
    /// Function, arguments and keywords.
    Whole = 2,
    /// No arguments. The function is defined separately.
    Nothing = 3,
    /// Arguments for each item of a span, in the form of `replies`. The function is defined separately.
    Span = 4,
    /// The only argument of each item of a span, in the form of `replies`. The function is defined
    /// separately.
    SingleSpan = 5,
}

/// The number that is added to the tag of a chunk: its items are one task, and an exception is that of all
/// items.
pub(crate) const AS_ONE: u8 = 8;

impl Tag {
    pub(crate) fn of(tag: u8) -> Option<Self> {
        [
            Self::Arguments,
            Self::Keywords,
            Self::Whole,
            Self::Nothing,
            Self::Span,
            Self::SingleSpan,
        ]
        .into_iter()
        .find(|known| *known as u8 == tag)
    }
}

/// Returns the pickle of the arguments of a call with a `bytes` object and a number.
pub(crate) fn arguments_of(bytes: &[u8], number: u64) -> Vec<u8> {
    const PROTOCOL: [u8; 2] = [0x80, 5];
    const SHORT_BYTES: u8 = b'C';
    const LONG_BYTES: u8 = 0x8e;
    const LONG: u8 = 0x8a;
    const TUPLE_OF_TWO: u8 = 0x86;
    const STOP: u8 = b'.';
    let mut pickle = Vec::with_capacity(bytes.len() + 32);
    pickle.extend_from_slice(&PROTOCOL);
    if let Ok(length) = u8::try_from(bytes.len()) {
        pickle.extend_from_slice(&[SHORT_BYTES, length]);
    } else {
        pickle.push(LONG_BYTES);
        pickle.extend_from_slice(&(bytes.len() as u64).to_le_bytes());
    }
    pickle.extend_from_slice(bytes);
    // The last byte has the sign.
    pickle.extend_from_slice(&[LONG, 9]);
    pickle.extend_from_slice(&number.to_le_bytes());
    pickle.extend_from_slice(&[0, TUPLE_OF_TWO, STOP]);
    pickle
}

/// A call as bytes.
pub(crate) struct Pickled {
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) tag: Tag,
    pub(crate) argument: Argument,
    /// The long buffers. If there are any, the argument begins with their table.
    pub(crate) attachment: Option<Attachment>,
}

impl Functions {
    /// Returns a call as bytes, if that takes no time and no foreign code. That is so if its function is
    /// found by its name, and its arguments are plain. A call whose arguments may change or are long is returned
    /// only if `has_room` holds.
    ///
    /// # Errors
    /// The exception of looking at the function.
    pub(crate) fn pickle_plain(
        &self,
        function: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
        pickling: &Pickling,
        has_room: impl FnOnce() -> bool,
    ) -> PyResult<Option<Pickled>> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let mut size = Size::default();
        let is_plain = arguments.is_empty() || size.adds(arguments, DEPTH);
        if !is_plain || !keywords.is_none_or(|keywords| size.adds_keywords(keywords)) {
            return Ok(None);
        }
        if size.is_worth_waiting() && !has_room() {
            return Ok(None);
        }
        if !picklers::is_original(function.py())? {
            return Ok(None);
        }
        let Some(definition) = self.define(function, Defined::Found)? else {
            return Ok(None);
        };
        match pickling.call(function, Some(definition), arguments, keywords) {
            // Another thread changes the arguments, and `pickle` has noticed. As any exception of pickling, that of
            // another attempt becomes the outcome of the future.
            Err(error)
                if cfg!(Py_GIL_DISABLED) && error.is_instance_of::<PyException>(function.py()) =>
            {
                Ok(None)
            }
            pickled => pickled.map(Some),
        }
    }

    /// Returns a call as bytes.
    ///
    /// # Errors
    /// The exception that pickling raises.
    pub(crate) fn pickle(
        &self,
        function: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
        pickling: &Pickling,
    ) -> PyResult<Pickled> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let definition = self.definition(function, Defined::Named)?;
        pickling.call(function, definition, arguments, keywords)
    }

    /// Returns the calls for the items of a chunk as bytes, in the form of [`replies`]. None if the items are
    /// not plain, or too many.
    ///
    /// # Errors
    /// The exception of looking at the function.
    pub(crate) fn plain_chunk(
        &self,
        function: &Bound<'_, PyAny>,
        items: &[Bound<'_, PyAny>],
        is_single: bool,
    ) -> PyResult<Option<Pickled>> {
        let mut bytes = Vec::new();
        if !replies::append_chunk(items, &mut bytes) {
            return Ok(None);
        }
        Ok(self
            .definition_for_items(function)?
            .map(|definition| Pickled {
                definition: Some(definition),
                tag: if is_single {
                    Tag::SingleSpan
                } else {
                    Tag::Span
                },
                argument: Argument::Own(bytes),
                attachment: None,
            }))
    }
}

impl Pickling {
    /// Returns a call as bytes. The function is pickled with the rest if it has no definition.
    fn call(
        &self,
        function: &Bound<'_, PyAny>,
        definition: Option<Arc<Definition>>,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
    ) -> PyResult<Pickled> {
        let py = function.py();
        let (tag, (argument, attachment)) = match (&definition, keywords) {
            (Some(_), None) if arguments.is_empty() => {
                (Tag::Nothing, (Argument::Own(Vec::new()), None))
            }
            (Some(_), None) => (Tag::Arguments, self.dumps(arguments)?),
            (Some(_), Some(keywords)) => {
                let both = PyTuple::new(py, [arguments.as_any(), keywords.as_any()])?;
                (Tag::Keywords, self.dumps(both.as_any())?)
            }
            (None, keywords) => {
                let keywords = keywords.cloned().unwrap_or_else(|| PyDict::new(py));
                let parts = [function, arguments.as_any(), keywords.as_any()];
                let whole = PyTuple::new(py, parts)?;
                (Tag::Whole, self.dumps(whole.as_any())?)
            }
        };
        Ok(Pickled {
            definition,
            tag,
            argument,
            attachment,
        })
    }
}
