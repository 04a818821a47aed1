//! Functions that travel: by their place in the executable.
//!
//! A function, or a closure that captures nothing, is a type without size: all there is to
//! it is code. For each such type and its argument there is a *trampoline*, a plain function
//! of one and the same signature, which turns bytes into the argument, calls, and turns
//! the result into bytes. The place of the trampoline is what travels.

use super::codec::{self, Bytes};
use super::deliver;
use super::error::{TransferError, TransferStep};
use super::failure::Failure;
use super::image::image;
use crate::executor::{Function, Value};
use crate::future::Outcome;
use crate::map;
use crate::panic;
use std::any::type_name;
use std::error::Error;
use std::marker::PhantomData;
use std::mem;
use std::ptr::NonNull;

/// Calls a function in a worker. What comes out is in the buffer: a value's bytes, if true
/// is returned, or else those of a [`Failure`].
pub(super) type Trampoline = fn(Bytes<'_>, &mut Vec<u8>) -> bool;

/// Conjures a function.
///
/// Refuses closures that capture, and pointers to functions, at compile time; but not what has no
/// size among the captures, which no property of a type tells. The documentation of the executor asks
/// programs not to capture tokens.
pub(super) fn conjure<F: Function>() -> F {
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

/// A kind of call: how it is carried out, and how its outcome travels.
pub(super) trait Invoke {
    /// What the future gives.
    type Output: Send + 'static;

    /// The name of the function, for error messages.
    fn name() -> &'static str;

    /// Turns bytes into the argument, calls, and turns the result into bytes.
    ///
    /// # Errors
    /// Why there is no value.
    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure>;

    /// Makes the future's outcome of the bytes of a result.
    ///
    /// # Errors
    /// Why it cannot.
    fn receive(bytes: Bytes<'_>) -> Outcome<Self::Output>;

    /// Whether [`receive`](Self::receive), and dropping what it returns, calls no foreign code.
    fn is_plain() -> bool;
}

fn receive<T: Value>(bytes: Bytes<'_>) -> Outcome<T> {
    codec::decode(bytes)
        .map_err(|error| TransferError::new::<T>(TransferStep::ReceiveResult, error).into())
}

/// Calls a function.
pub(super) struct Plain<F, A, T>(PhantomData<fn(F, A) -> T>);

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
        deliver::is_plain::<T>()
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let argument = codec::decode(argument).map_err(Failure::argument::<A>)?;
        codec::encode(conjure::<F>()(argument), result).map_err(Failure::result::<T>)
    }
}

/// Calls a function whose `Err` is the future's error.
pub(super) struct Fallible<F, A, T, E>(PhantomData<fn(F, A, T, E)>);

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
        deliver::is_plain::<T>()
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let argument = codec::decode(argument).map_err(Failure::argument::<A>)?;
        let value = conjure::<F>()(argument).map_err(|error| Failure::failed(&*error.into()))?;
        codec::encode(value, result).map_err(Failure::result::<T>)
    }
}

/// Calls a function for each item of a chunk, and keeps an outcome for each.
pub(super) struct Chunk<F, A, T>(PhantomData<fn(F, A) -> T>);

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
        deliver::is_plain::<T>()
    }

    fn invoke(argument: Bytes<'_>, result: &mut Vec<u8>) -> Result<(), Failure> {
        let items: Vec<A> = codec::decode(argument).map_err(Failure::argument::<Vec<A>>)?;
        let call =
            |item| panic::catch(|| conjure::<F>()(item)).map_err(|panic| Failure::panicked(&panic));
        let outcomes: Vec<Result<T, Failure>> = items.into_iter().map(call).collect();
        codec::encode(outcomes, result).map_err(Failure::result::<Vec<T>>)
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

/// The place of a call's trampoline, if it is in the executable.
pub(super) fn place_of<I: Invoke>() -> Option<u64> {
    let trampoline: Trampoline = trampoline::<I>;
    image().ok()?.place_of(trampoline as usize)
}

/// The trampoline at a place that came from the supervisor, whose build is this one: the
/// handshake has compared them.
pub(super) fn at(place: u64) -> Option<Trampoline> {
    let address = image().ok()?.address_at(place)?;
    // SAFETY: all that `place_of` gives places of, in a process of the same build, are
    // trampolines, and the address is in the executable's code. A worker trusts its
    // supervisor, whose memory is what it was made of, with the rest.
    Some(unsafe { mem::transmute::<usize, Trampoline>(address) })
}
