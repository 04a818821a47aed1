//! Why a task has no value, as a worker tells it, and as its supervisor understands it.

#![forbid(unsafe_code)]

use super::error::{RemoteError, TransferError, TransferStep};
use crate::error::{PanicLocation, TaskError, TaskPanic};
use serde::{Deserialize, Serialize};
use std::backtrace::BacktraceStatus;
use std::error::Error;
use std::sync::Arc;

/// What a worker tells.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Failure {
    /// The task panicked.
    Panicked {
        message: String,
        location: Option<(String, u32, u32)>,
        backtrace: Option<String>,
    },
    /// The task returned an error: its text, and that of each of its sources.
    Failed { texts: Vec<String> },
    /// A value did not travel.
    Transfer {
        is_result: bool,
        type_name: String,
        error: String,
    },
}

impl Failure {
    pub(super) fn panicked(panic: &TaskPanic) -> Self {
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

    pub(super) fn failed(error: &(dyn Error + 'static)) -> Self {
        /// An error that is its own source must not go on for ever.
        const MOST: usize = 64;
        let mut texts = Vec::new();
        let mut next = Some(error);
        while let (Some(error), 0..MOST) = (next, texts.len()) {
            texts.push(error.to_string());
            next = error.source();
        }
        Self::Failed { texts }
    }

    pub(super) fn argument<T>(error: String) -> Self {
        Self::transfer::<T>(false, error)
    }

    pub(super) fn result<T>(error: String) -> Self {
        Self::transfer::<T>(true, error)
    }

    fn transfer<T>(is_result: bool, error: String) -> Self {
        Self::Transfer {
            is_result,
            type_name: std::any::type_name::<T>().to_owned(),
            error,
        }
    }

    /// The failure as bytes.
    pub(super) fn encode(&self, bytes: &mut Vec<u8>) {
        bytes.clear();
        // Texts and numbers always serialise.
        if let Ok(written) = postcard::to_extend(self, std::mem::take(bytes)) {
            *bytes = written;
        }
    }

    /// The error that bytes stand for.
    pub(super) fn decode(bytes: &[u8]) -> TaskError {
        match postcard::from_bytes::<Self>(bytes) {
            Ok(failure) => failure.into_error(),
            Err(error) => {
                TransferError::new::<Self>(TransferStep::ReceiveResult, error.to_string()).into()
            }
        }
    }

    pub(super) fn into_error(self) -> TaskError {
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
