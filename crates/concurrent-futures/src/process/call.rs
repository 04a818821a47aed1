//! Calls as bytes, for executors whose workers are beyond this machine.
//!
//! Such an executor sends the *entry* of a call and its argument, and makes the outcome of the bytes that come
//! back. The process that receives them submits the entry to a pool of its own. An entry is a place in a table
//! of the executable, which both processes share if they are of the same build: see [`is_entry`].

#![forbid(unsafe_code)]

use crate::error::process::{TransferError, TransferStep};
use crate::error::{SubmitError, TaskError};
use crate::executor::{Function, Value};
use crate::future::Future;
use crate::id::FutureId;
use crate::process::codec::{self, Bytes};
use crate::process::executor::ProcessPoolExecutor;
use crate::process::failure::Failure;
use crate::process::function::{self, Fallible, Invoke, Plain, Span, SpanWatch};
use crate::process::options::TaskOptions;
use crate::task::panic;
use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;

/// The outcome of a call, as bytes.
#[derive(Clone, Debug)]
pub enum Called<'a> {
    /// The call returned a value.
    Value(Cow<'a, [u8]>),
    /// The call has no value, for the reason that [`encode_error`] has encoded.
    Failure(Cow<'a, [u8]>),
}

/// A function that can be called in another process.
pub struct RemoteFunction<A, T> {
    entry: fn() -> Option<u64>,
    receive: fn(Bytes<'_>) -> Result<T, TaskError>,
    error_in: fn(&T) -> Option<&TaskError>,
    name: &'static str,
    is_plain: bool,
    argument: PhantomData<fn(A)>,
}

impl<A: Value, T: Send + 'static> RemoteFunction<A, T> {
    fn of<I: Invoke<Output = T>>() -> Self {
        Self {
            entry: function::entry_of::<I>,
            receive: I::receive,
            error_in: I::error_in,
            name: I::name(),
            is_plain: I::is_plain(),
            argument: PhantomData,
        }
    }

    /// Makes the call of a function.
    pub fn plain<F>(_: F) -> Self
    where
        F: Fn(A) -> T + Function,
        T: Value,
    {
        Self::of::<Plain<F, A, T>>()
    }

    /// Makes the call of a function that is in another program: it has no entry here.
    #[must_use]
    pub fn elsewhere() -> Self
    where
        T: Value,
    {
        Self {
            entry: || None,
            receive: function::receive::<T>,
            error_in: |_| None,
            name: type_name::<fn(A) -> T>(),
            is_plain: codec::is_plain::<T>(),
            argument: PhantomData,
        }
    }

    /// Makes the call of a function whose `Err` is the future's error.
    pub fn fallible<F, E>(_: F) -> Self
    where
        F: Fn(A) -> Result<T, E> + Function,
        T: Value,
        E: Into<Box<dyn Error + Send + Sync>>,
    {
        Self::of::<Fallible<F, A, T, E>>()
    }

    /// Returns the name of the function.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Returns whether [`receive`](Self::receive), and dropping what it returns, calls no foreign code.
    #[must_use]
    pub fn is_plain(&self) -> bool {
        self.is_plain
    }

    /// Returns the first error in a value as text, if the value has errors of calls.
    #[must_use]
    pub fn error_in(&self, value: &T) -> Option<String> {
        (self.error_in)(value).map(ToString::to_string)
    }

    /// Returns the entry of the function; none if it is not in the executable.
    #[must_use]
    pub fn entry(&self) -> Option<u64> {
        (self.entry)()
    }

    /// Encodes a call: its entry, and its argument.
    ///
    /// # Errors
    /// [`Unsent`], when the argument does not serialise, or the function is not in the executable.
    pub fn send(&self, argument: A) -> Result<(u64, Vec<u8>), Unsent> {
        let entry = self.entry().ok_or_else(|| {
            let text =
                String::from("it is in a shared library, or the system has no table of calls");
            Unsent(TransferError::named(TransferStep::Function, self.name.to_owned(), text).into())
        })?;
        Ok((entry, self.send_argument(argument)?))
    }

    /// Encodes the argument of a call.
    ///
    /// # Errors
    /// [`Unsent`], when the argument does not serialise.
    pub fn send_argument(&self, argument: A) -> Result<Vec<u8>, Unsent> {
        let mut bytes = Vec::new();
        match panic::catch(|| codec::encode(argument, &mut bytes)) {
            Ok(Ok(())) => Ok(bytes),
            Ok(Err(error)) => Err(Unsent(
                TransferError::new::<A>(TransferStep::SendArgument, error).into(),
            )),
            Err(panic) => Err(Unsent(TaskError::Panicked(panic))),
        }
    }

    /// Makes the outcome of a call.
    ///
    /// # Errors
    /// The reason why the call has no value.
    pub fn receive(&self, called: Called<'_>) -> Result<T, TaskError> {
        match called {
            Called::Value(bytes) => panic::catch(|| (self.receive)(bytes.into()))
                .unwrap_or_else(|panic| Err(TaskError::Panicked(panic))),
            Called::Failure(bytes) => Err(decode_error(&bytes)),
        }
    }
}

impl<A: Value, T: Value> RemoteFunction<Vec<A>, Vec<Result<T, TaskError>>> {
    /// Makes the call of a function for each item of a span, whose worker tells `W` of each result. The argument of the
    /// call is to begin with a token for `W`, of eight bytes in little-endian order.
    pub fn span<F, W>(_: F) -> Self
    where
        F: Fn(A) -> T + Function,
        W: SpanWatch + 'static,
    {
        Self::of::<Span<F, A, T, W>>()
    }
}

impl<A, T> Clone for RemoteFunction<A, T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<A, T> Copy for RemoteFunction<A, T> {}

impl<A, T> fmt::Debug for RemoteFunction<A, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("RemoteFunction").field(&self.name).finish()
    }
}

/// The reason why a call cannot be sent, which is the outcome of its future.
#[derive(Debug)]
pub struct Unsent(pub TaskError);

/// Returns whether a number from elsewhere is the entry of a call of this build. It is safe for any number.
#[must_use]
pub fn is_entry(entry: u64) -> bool {
    function::trampoline_of(entry).is_some()
}

/// Submits a call by its entry, and returns the future of its value as bytes. None if there is no such entry.
///
/// The thread that receives the reply wakes the future's wakers itself, and not the thread for callbacks. So they must be
/// short, and may neither block nor call the pool. Those of asynchronous runtimes are.
///
/// # Errors
/// As for [`ProcessPoolExecutor::submit`].
pub fn submit_entry(
    pool: &ProcessPoolExecutor,
    mut options: TaskOptions,
    entry: u64,
    argument: Vec<u8>,
) -> Option<Result<Future<Vec<u8>>, SubmitError>> {
    options.wakes_at_once = true;
    let place = function::trampoline_of(entry)?;
    Some(pool.submit_place(options, place, argument))
}

/// Receives the replies of workers that come while the calling thread spins once: for a little longer than waking a worker
/// takes. Returns whether there were some. A thread calls it that has just submitted a short call.
pub fn receive_soon(pool: &ProcessPoolExecutor) -> bool {
    pool.receive_soon()
}

/// Encodes the error of a task, for [`decode_error`] in another process.
#[must_use]
pub fn encode_error(error: &TaskError) -> Vec<u8> {
    let mut bytes = Vec::new();
    Failure::of_error(error).encode(&mut bytes);
    bytes
}

/// Gives an error of a worker on another machine the task and the name of its function. Other errors stay as they are.
#[must_use]
pub fn name_error(error: TaskError, task: FutureId, name: Cow<'static, str>) -> TaskError {
    match error {
        TaskError::WorkerDied(mut death) => {
            Arc::make_mut(&mut death).task = Some((task, name));
            TaskError::WorkerDied(death)
        }
        TaskError::TimeLimit(mut exceeded) => {
            let ours = Arc::make_mut(&mut exceeded);
            (ours.task, ours.name) = (task, name);
            TaskError::TimeLimit(exceeded)
        }
        other => other,
    }
}

/// Makes the error of a task that another process has encoded.
#[must_use]
pub fn decode_error(bytes: &[u8]) -> TaskError {
    Failure::decode(bytes)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use crate::error::process::{WorkerDied, WorkerExit};

    #[test]
    fn a_place_that_is_no_entry_is_refused() {
        let function = RemoteFunction::<u32, u32>::plain(|n: u32| n + 1);
        let (entry, _) = function.send(1).unwrap();
        assert!(is_entry(entry));
        // Neither its neighbours, nor code, nor any other number.
        for place in (entry - 64..entry + 64).filter(|place| *place != entry) {
            let other = function::trampoline_of(place);
            assert!(other.is_none() || place % 8 == 0, "{place}");
        }
        for place in [0, 1, u64::MAX, u64::MAX / 2, 1 << 40] {
            assert!(!is_entry(place), "{place}");
        }
    }

    #[test]
    fn errors_of_workers_elsewhere_get_the_name_of_the_function() {
        let task = FutureId::next();
        let name = |error| name_error(error, task, Cow::Borrowed("squares"));
        let death = WorkerDied {
            task: None,
            pid: 17,
            exit: WorkerExit::Code(3),
            memory_limit: None,
            note: None,
        };
        let named = name(TaskError::WorkerDied(Arc::new(death)));
        let expected =
            format!("worker process 17 exited with code 3 while it ran task {task} (squares)");
        assert_eq!(named.to_string(), expected);
        assert_eq!(
            name(TaskError::Abandoned).to_string(),
            TaskError::Abandoned.to_string()
        );
    }

    #[test]
    fn errors_come_back() {
        let death = TaskError::WorkerDied(Arc::new(WorkerDied {
            task: None,
            pid: 17,
            exit: WorkerExit::Signal(9),
            memory_limit: Some(5),
            note: None,
        }));
        let transfer = TransferError::named(TransferStep::SendResult, "T".into(), "e".into());
        let failed = TaskError::failed("no luck");
        for error in [death, transfer.into(), failed, TaskError::Terminated] {
            let back = decode_error(&encode_error(&error));
            assert_eq!(back.to_string(), error.to_string());
            assert_eq!(
                std::mem::discriminant(&back),
                std::mem::discriminant(&error)
            );
        }
    }
}
