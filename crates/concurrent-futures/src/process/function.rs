//! Functions that travel to workers by their address in the executable.
//!
//! A function, or a closure that captures nothing, is a type without size: it consists of code only. Each
//! such type and its argument have a *trampoline*. A trampoline is a plain function with the same signature
//! for all types. It turns bytes into the argument, calls the function, and turns the result into bytes. The
//! place of the trampoline is sent to the worker.

use crate::error::TaskError;
use crate::error::process::{TransferError, TransferStep};
use crate::executor::{Function, Value};
use crate::map;
use crate::process::channel::MappedSegment;
use crate::process::codec::{self, Bytes};
use crate::process::contract::{Answer, CallOrder, Called, Caller, Progress};
use crate::process::failure::Failure;
use crate::runtime::os::image::image;
use crate::task::{Outcome, panic};
use std::any::type_name;
use std::borrow::Cow;
use std::error::Error;
use std::io;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;

/// Calls a function in a worker. Returns true and leaves the bytes of the value in the buffer, or returns
/// false and leaves those of a [`Failure`].
pub(crate) type Trampoline = fn(Bytes<'_>, &mut Vec<u8>) -> bool;

/// Makes a value of a function's type, which has no size.
///
/// Refuses closures that capture values with a size, and pointers to functions, at compile time. Captured
/// values without size get through, as no property of a type tells of them. The documentation of the executor
/// asks programs not to capture tokens.
pub(crate) fn conjure<F: Function>() -> F {
    const {
        assert!(
            size_of::<F>() == 0,
            "only a function, or a closure that captures nothing, can be called in another \
             process: pass what it needs as its argument (a pointer to a function cannot \
             either: name the function, or write a closure that calls it)"
        );
    }
    // SAFETY: the type has no size, so that any aligned address is where a value of it is,
    // and it is `Copy`. A value exists: the submitter had one in its hands, and this is
    // called for types whose values were submitted only. That one of another process counts, too, is
    // what the executor's documentation asks for ("values without size").
    unsafe { *NonNull::<F>::dangling().as_ref() }
}

/// A kind of call: how it is carried out, and how its outcome is sent.
pub(crate) trait Invoke {
    /// The type of the future's value.
    type Output: Send + 'static;

    /// Returns the name of the function, for error messages.
    fn name() -> &'static str;

    /// Turns bytes into the argument, calls the function, and turns the result into bytes.
    ///
    /// # Errors
    /// Why there is no value.
    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure>;

    /// Makes the future's outcome from the bytes of a result.
    ///
    /// # Errors
    /// Why it cannot.
    fn receive(bytes: Bytes<'_>) -> Outcome<Self::Output>;

    /// Returns whether [`receive`](Self::receive), and dropping what it returns, calls no foreign code.
    fn is_plain() -> bool;

    /// Returns the first error in a value, if the value has errors of calls.
    fn error_in(_value: &Self::Output) -> Option<&TaskError> {
        None
    }
}

/// Makes a value of bytes.
///
/// # Errors
/// The value does not deserialise.
pub(crate) fn receive<T: Value>(bytes: Bytes<'_>) -> Outcome<T> {
    codec::decode(bytes)
        .map_err(|error| TransferError::new::<T>(TransferStep::ReceiveResult, error).into())
}

/// Calls a function.
pub(crate) struct Plain<F, A, T>(PhantomData<fn(F, A) -> T>);

impl<F, A, T> Invoke for Plain<F, A, T>
where
    F: Fn(A) -> T + Function,
    A: Value,
    T: Value,
{
    type Output = T;

    fn name() -> &'static str {
        type_name::<F>()
    }

    fn receive(bytes: Bytes<'_>) -> Outcome<T> {
        receive(bytes)
    }

    fn is_plain() -> bool {
        codec::is_plain::<T>()
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let argument = codec::decode(argument).map_err(Failure::argument::<A>)?;
        codec::encode(conjure::<F>()(argument), result).map_err(Failure::result::<T>)
    }
}

/// Calls a function whose `Err` is the future's error.
pub(crate) struct Fallible<F, A, T, E>(PhantomData<fn(F, A, T, E)>);

impl<F, A, T, E> Invoke for Fallible<F, A, T, E>
where
    F: Fn(A) -> Result<T, E> + Function,
    A: Value,
    T: Value,
    E: Into<Box<dyn Error + Send + Sync>>,
{
    type Output = T;

    fn name() -> &'static str {
        type_name::<F>()
    }

    fn receive(bytes: Bytes<'_>) -> Outcome<T> {
        receive(bytes)
    }

    fn is_plain() -> bool {
        codec::is_plain::<T>()
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let argument = codec::decode(argument).map_err(Failure::argument::<A>)?;
        let value = conjure::<F>()(argument).map_err(|error| Failure::failed(&*error.into()))?;
        codec::encode(value, result).map_err(Failure::result::<T>)
    }
}

/// Calls a function for each item of a chunk, and keeps an outcome for each.
pub(crate) struct Chunk<F, A, T>(PhantomData<fn(F, A) -> T>);

impl<F, A, T> Invoke for Chunk<F, A, T>
where
    F: Fn(A) -> T + Function,
    A: Value,
    T: Value,
{
    type Output = map::Chunk<T>;

    fn name() -> &'static str {
        type_name::<F>()
    }

    fn receive(bytes: Bytes<'_>) -> Outcome<map::Chunk<T>> {
        let outcomes: Vec<Result<T, Failure>> = receive(bytes)?;
        let outcomes = outcomes.into_iter();
        Ok(outcomes
            .map(|outcome| outcome.map_err(Failure::into_error))
            .collect())
    }

    fn is_plain() -> bool {
        codec::is_plain::<T>()
    }

    fn error_in(value: &map::Chunk<T>) -> Option<&TaskError> {
        value.iter().find_map(|result| result.as_ref().err())
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let items: Vec<A> = codec::decode(argument).map_err(Failure::argument::<Vec<A>>)?;
        let call =
            |item| panic::catch(|| conjure::<F>()(item)).map_err(|panic| Failure::panicked(&panic));
        let outcomes: Vec<Result<T, Failure>> = items.into_iter().map(call).collect();
        codec::encode(outcomes, result).map_err(Failure::result::<Vec<T>>)
    }
}

/// Learns the outcomes of the calls of a span one by one, in the worker that makes the calls.
pub trait SpanWatch {
    /// Begins a span of so many items, which the submitter knows by a token.
    fn begin(token: u64, items: usize) -> Self;

    /// Takes the outcome of the next call, as bytes.
    fn add(&mut self, outcome: &[u8]);

    /// Ends the span. Returns the bytes of all outcomes, one behind the other.
    fn end(self) -> Vec<u8>;
}

/// Returns some outcomes of a span, given one behind the other, as the receiver of the span takes them.
#[must_use]
pub fn part_of(count: usize, outcomes: &[u8]) -> Vec<u8> {
    // A number always serialises.
    let mut part = postcard::to_extend(&count, Vec::new()).unwrap_or_default();
    part.extend_from_slice(outcomes);
    part
}

/// Calls a function for each item of a span as [`Chunk`] does. Something watches that learns of each outcome at once.
pub(crate) struct Span<F, A, T, W>(PhantomData<fn(F, A, W) -> T>);

impl<F, A, T, W> Invoke for Span<F, A, T, W>
where
    F: Fn(A) -> T + Function,
    A: Value,
    T: Value,
    W: SpanWatch + 'static,
{
    type Output = map::Chunk<T>;

    fn name() -> &'static str {
        type_name::<F>()
    }

    fn receive(bytes: Bytes<'_>) -> Outcome<map::Chunk<T>> {
        Chunk::<F, A, T>::receive(bytes)
    }

    fn is_plain() -> bool {
        codec::is_plain::<T>()
    }

    fn error_in(value: &map::Chunk<T>) -> Option<&TaskError> {
        Chunk::<F, A, T>::error_in(value)
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let missing = || Failure::argument::<Vec<A>>(String::from("the token is missing"));
        let (token, items) = argument
            .as_slice()
            .split_first_chunk()
            .ok_or_else(missing)?;
        let items: Vec<A> =
            codec::decode(Bytes::Borrowed(items)).map_err(Failure::argument::<Vec<A>>)?;
        let count = items.len();
        let mut watch = W::begin(u64::from_le_bytes(*token), count);
        let mut outcome = Vec::new();
        for item in items {
            outcome.clear();
            let called = panic::catch(|| {
                codec::encode(Ok::<T, Failure>(conjure::<F>()(item)), &mut outcome)
            });
            let failure = match called {
                Ok(Ok(())) => None,
                Ok(Err(error)) => Some(Failure::result::<T>(error)),
                Err(panic) => Some(Failure::panicked(&panic)),
            };
            if let Some(failure) = failure {
                outcome.clear();
                // Texts and numbers always serialise.
                codec::encode(Err::<T, Failure>(failure), &mut outcome)
                    .map_err(Failure::result::<T>)?;
            }
            watch.add(&outcome);
        }
        *result = part_of(count, &watch.end());
        Ok(())
    }
}

/// A call whose trampoline is given by its place, and whose value stays bytes.
pub(crate) struct Opaque;

impl Invoke for Opaque {
    type Output = Vec<u8>;

    fn name() -> &'static str {
        "a call of another process"
    }

    fn invoke(_: Bytes<'_>, _: &mut Vec<u8>) -> Result<(), Failure> {
        Err(Failure::failed(&TaskError::Abandoned))
    }

    fn receive(bytes: Bytes<'_>) -> Outcome<Vec<u8>> {
        Ok(bytes.into_cow().into_owned())
    }

    fn is_plain() -> bool {
        true
    }
}

fn trampoline<I: Invoke>(argument: Bytes<'_>, result: &mut Vec<u8>) -> bool {
    let outcome = panic::catch(|| I::invoke(argument, result));
    let failure = match outcome {
        Ok(Ok(())) => return true,
        Ok(Err(failure)) => failure,
        Err(panic) => Failure::panicked(&panic),
    };
    failure.encode(result);
    false
}

/// Returns the place of a call's trampoline, if the trampoline is in the executable.
pub(crate) fn place_of<I: Invoke>() -> Option<u64> {
    let trampoline: Trampoline = trampoline::<I>;
    image().ok()?.place_of(trampoline as usize)
}

/// Returns the trampoline at a place that came from the supervisor. The supervisor's build is this one: the
/// handshake has compared them.
pub(crate) fn at(place: u64) -> Option<Trampoline> {
    let address = image().ok()?.address_at(place)?;
    // SAFETY: `place_of` returns places of trampolines only, in a process of the same build, and the address
    // is in the executable's code. A worker trusts its supervisor, whose memory is what it was made of, with
    // the rest.
    Some(unsafe { mem::transmute::<usize, Trampoline>(address) })
}

/// An entry of the executable's table of calls: the words that mark an entry, and the trampoline of a call.
#[repr(C)]
struct Entry {
    mark: [u64; 4],
    trampoline: Trampoline,
}

/// The words that mark an entry.
const MARK: [u64; 4] = [
    0x9b1f_70c5_3ee8_d2a7,
    0x46d8_a90b_c15f_7e33,
    0xe27c_5814_0b96_fd6a,
    0x38f3_c6de_924b_a051,
];

/// The entry of one call. The compiler puts the entries among the constants of the executable.
struct EntryOf<I>(PhantomData<I>);

impl<I: Invoke> EntryOf<I> {
    const ENTRY: &'static Entry = &Entry {
        mark: MARK,
        trampoline: trampoline::<I>,
    };
}

/// Returns the place of a call's entry in the table, which names the call in every process of this build.
pub(crate) fn entry_of<I: Invoke>() -> Option<u64> {
    let entry = std::ptr::from_ref(EntryOf::<I>::ENTRY);
    image().ok()?.constant_place_of(entry.addr())
}

/// Returns the place of the trampoline of an entry, for workers of this process. None if no entry is at
/// `place`, whatever the place is.
pub(crate) fn trampoline_of(place: u64) -> Option<u64> {
    let image = image().ok()?;
    let address = image.constant_at(place, size_of::<Entry>())?;
    if !address.is_multiple_of(align_of::<Entry>()) {
        return None;
    }
    let words = std::ptr::with_exposed_provenance::<[u64; 4]>(address);
    // SAFETY: `constant_at` has checked that the bytes of an entry are constants of the executable, which are
    // mapped as long as the process runs. The address is aligned, and any bytes are four words.
    if unsafe { words.read() } != MARK {
        return None;
    }
    let trampoline = std::ptr::with_exposed_provenance::<usize>(
        address + std::mem::offset_of!(Entry, trampoline),
    );
    // SAFETY: as before; any bytes are a number.
    image.place_of(unsafe { trampoline.read() })
}

/// Carries out the calls of the Rust frontend.
pub(crate) struct Trampolines;

impl Caller for Trampolines {
    fn call(
        &mut self,
        order: CallOrder,
        argument: &mut Cow<'_, [u8]>,
        _: Option<io::Result<MappedSegment>>,
        answer: &mut Answer,
        _: &mut dyn Progress,
    ) -> Called {
        let Some(function) = at(order.function) else {
            return Called::Garbled;
        };
        if function(mem::take(argument).into(), &mut answer.bytes) {
            Called::Returned
        } else {
            Called::Raised
        }
    }
}
