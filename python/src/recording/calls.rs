//! Calls for worker processes, as recordings show them.

use crate::pickle::calls::Pickled;
use crate::recording::names;
use concurrent_futures::FutureId;
use concurrent_futures::engine::{Attachment, recorder, recording_clock};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

/// Returns the number of bytes of a call.
pub(crate) fn length(pickled: &Pickled) -> usize {
    let attached = pickled.attachment.as_ref().map_or(0, Attachment::length);
    pickled.argument.len() + attached
}

/// A call that is recorded.
pub(crate) struct Recorded<'a, 'py> {
    function: &'a Bound<'py, PyAny>,
    arguments: Option<(&'a Bound<'py, PyTuple>, Option<&'a Bound<'py, PyDict>>)>,
    /// When pickling began.
    began: u64,
}

impl<'a, 'py> Recorded<'a, 'py> {
    /// Begins the record of a call; none if nothing is recorded. To be called before pickling.
    pub(crate) fn of(
        function: &'a Bound<'py, PyAny>,
        arguments: Option<(&'a Bound<'py, PyTuple>, Option<&'a Bound<'py, PyDict>>)>,
    ) -> Option<Self> {
        recorder::is_on().then(|| Self {
            function,
            arguments,
            began: recording_clock(),
        })
    }

    /// Records the submission, and the pickling if the call was pickled.
    pub(crate) fn note(self, pool: u32, future: FutureId, pickled: Option<&Pickled>) {
        if let Some(pickled) = pickled {
            recorder::pickled(future, self.began, length(pickled));
        }
        names::note_submitted(future, pool, self.function, self.arguments);
    }
}
