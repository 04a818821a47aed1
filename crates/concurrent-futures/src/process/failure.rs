//! Failures of tasks as bytes, from the worker to the supervisor.

#![forbid(unsafe_code)]

use crate::error::process::{
    RemoteError, TimeLimitExceeded, TransferError, TransferStep, WorkerDied, WorkerExit,
};
use crate::error::{PanicLocation, TaskError, TaskPanic};
use crate::id::FutureId;
use serde::{Deserialize, Serialize};
use std::backtrace::BacktraceStatus;
use std::borrow::Cow;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

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
    /// The worker of another machine's pool died.
    Died {
        pid: u32,
        exit: (u8, i32),
        memory_limit: Option<u64>,
        note: String,
    },
    /// The task ran longer than its time limit on another machine.
    TimeLimit { pid: u32, limit: Duration },
    /// The task was terminated on another machine.
    Terminated,
    /// The value was not transferred on another machine.
    Lost {
        step: u8,
        type_name: String,
        error: String,
    },
}

/// The steps of a transfer, in the order of their numbers.
const STEPS: [TransferStep; 5] = [
    TransferStep::SendArgument,
    TransferStep::ReceiveArgument,
    TransferStep::SendResult,
    TransferStep::ReceiveResult,
    TransferStep::Function,
];

impl Failure {
    /// Makes the failure that another machine is told of.
    pub(crate) fn of_error(error: &TaskError) -> Self {
        match error {
            TaskError::Panicked(panic) => Self::panicked(panic),
            TaskError::Failed(error) => Self::failed(&**error),
            TaskError::WorkerDied(death) => Self::Died {
                pid: death.pid,
                exit: match death.exit {
                    WorkerExit::Code(code) => (0, code),
                    WorkerExit::Signal(signal) => (1, signal),
                    WorkerExit::Unknown => (2, 0),
                },
                memory_limit: death.memory_limit,
                note: death.note.as_deref().unwrap_or_default().to_owned(),
            },
            TaskError::TimeLimit(limit) => Self::TimeLimit {
                pid: limit.pid,
                limit: limit.limit,
            },
            TaskError::Terminated => Self::Terminated,
            TaskError::Transfer(error) => {
                let step = STEPS.iter().position(|step| *step == error.step());
                Self::Lost {
                    step: step.and_then(|step| u8::try_from(step).ok()).unwrap_or(0),
                    type_name: error.type_name().to_owned(),
                    error: error.error().to_owned(),
                }
            }
            other => Self::failed(other),
        }
    }

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
            Self::Died {
                pid,
                exit: (kind, number),
                memory_limit,
                note,
            } => TaskError::WorkerDied(Arc::new(WorkerDied {
                task: None,
                pid,
                exit: match kind {
                    0 => WorkerExit::Code(number),
                    1 => WorkerExit::Signal(number),
                    _ => WorkerExit::Unknown,
                },
                memory_limit,
                note: (!note.is_empty()).then(|| note.into()),
            })),
            Self::TimeLimit { pid, limit } => TaskError::TimeLimit(Arc::new(TimeLimitExceeded {
                task: FutureId::next(),
                name: Cow::Borrowed("of another machine"),
                pid,
                limit,
            })),
            Self::Terminated => TaskError::Terminated,
            Self::Lost {
                step,
                type_name,
                error,
            } => {
                let step = STEPS.get(usize::from(step)).copied();
                let step = step.unwrap_or(TransferStep::ReceiveResult);
                TransferError::named(step, type_name, error).into()
            }
        }
    }
}
