//! Failures of tasks as bytes, from the worker to the supervisor.

#![forbid(unsafe_code)]

use crate::error::process::{RemoteError, TransferError, TransferStep};
use crate::error::{PanicLocation, TaskError, TaskPanic};
use serde::{Deserialize, Serialize};
use std::backtrace::BacktraceStatus;
use std::error::Error;
use std::sync::Arc;

/// A failure, as a worker sends it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Failure {
    /// The task panicked.
    Panicked {
        message: String,
        location: Option<(String, u32, u32)>,
        backtrace: Option<String>,
    },
    /// The task returned an error: its text, and that of each of its sources.
    Failed { texts: Vec<String> },
    /// A value could not be sent.
    Transfer {
        is_result: bool,
        type_name: String,
        error: String,
    },
}

impl Failure {
    pub(crate) fn panicked(panic: &TaskPanic) -> Self {
        let backtrace = panic.backtrace();
        let is_captured = backtrace.status() == BacktraceStatus::Captured;
        Self::Panicked {
            message: panic.message().to_owned(),
            location: panic
                .location()
                .map(|place| (place.file.clone(), place.line, place.column)),
            backtrace: is_captured.then(|| backtrace.to_string()),
        }
    }

    pub(crate) fn failed(error: &(dyn Error + 'static)) -> Self {
        /// The largest number of an error's sources that are sent: an error may be its own source.
        const MOST: usize = 64;
        let mut texts = Vec::new();
        let mut next = Some(error);
        while let (Some(error), 0..MOST) = (next, texts.len()) {
            texts.push(error.to_string());
            next = error.source();
        }
        Self::Failed { texts }
    }

    pub(crate) fn argument<T>(error: String) -> Self {
        Self::transfer::<T>(false, error)
    }

    pub(crate) fn result<T>(error: String) -> Self {
        Self::transfer::<T>(true, error)
    }

    fn transfer<T>(is_result: bool, error: String) -> Self {
        Self::Transfer {
            is_result,
            type_name: std::any::type_name::<T>().to_owned(),
            error,
        }
    }

    /// Writes the failure as bytes.
    pub(crate) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        // Texts and numbers always serialise.
        if let Ok(written) = postcard::to_extend(self, std::mem::take(bytes)) {
            *bytes = written;
        }
    }

    /// Returns the error that bytes stand for.
    pub(crate) fn decode(bytes: &[u8]) -> TaskError {
        match postcard::from_bytes::<Self>(bytes) {
            Ok(failure) => failure.into_error(),
            Err(error) => {
                TransferError::new::<Self>(TransferStep::ReceiveResult, error.to_string()).into()
            }
        }
    }

    pub(crate) fn into_error(self) -> TaskError {
        match self {
            Self::Panicked {
                message,
                location,
                backtrace,
            } => {
                let location =
                    location.map(|(file, line, column)| PanicLocation { file, line, column });
                let panic = TaskPanic::from_elsewhere(message, location, backtrace);
                TaskError::Panicked(Arc::new(panic))
            }
            Self::Failed { texts } => TaskError::Failed(Arc::new(RemoteError::new(texts))),
            Self::Transfer {
                is_result,
                type_name,
                error,
            } => {
                let step = if is_result {
                    TransferStep::SendResult
                } else {
                    TransferStep::ReceiveArgument
                };
                TransferError::named(step, type_name, error).into()
            }
        }
    }
}
