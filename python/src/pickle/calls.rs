//! Pickles calls for another process.
//!
//! Functions that are pickled by reference, as most are, are *defined*: each worker gets their name once, and calls
//! have a number in its place. The table finds the name by the function's address. The table keeps no
//! function. Each call compares the function with the object that its name stands for, so that another
//! function at the same address is noticed.
//!
//! Arguments are pickled as `multiprocessing` does it, with the reductions that were registered there or in
//! `copyreg`. For numbers, texts and the like the plain pickler gives the same result, many times faster.

use crate::interp::deferred_drop::release_object;
use crate::interp::{interned, stdlib};
use crate::pickle::buffers::{self, Collector};
use crate::pickle::by_name::Name;
use crate::pickle::callee::Callee;
use crate::pickle::snapshot::{items_of, pairs_of};
use crate::pickle::{partials, picklers, replies, unpickling, values};
use concurrent_futures::engine::{Answer, Argument, Attachment, Definition, Segments};
use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyList, PyString, PyTuple};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::slice;
use std::sync::{Arc, Mutex, PoisonError};

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

/// A call as bytes.
pub(crate) struct Pickled {
    pub(crate) definition: Option<Arc<Definition>>,
    pub(crate) tag: Tag,
    pub(crate) argument: Argument,
    /// The long buffers. If there are any, the argument begins with their table.
    pub(crate) attachment: Option<Attachment>,
}

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

/// The functions that are defined.
#[derive(Default)]
pub(crate) struct Functions(Mutex<Table>);

/// The hash of an address: objects lie at multiples of 16.
#[derive(Default)]
struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        /// An odd number near 2^64 divided by the golden ratio, which spreads the bits.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        let mixed = (self.0 ^ address as u64).wrapping_mul(SPREAD);
        self.0 = mixed ^ (mixed >> 32);
    }
}

#[derive(Default)]
struct Table {
    by_address: HashMap<usize, Known, BuildHasherDefault<AddressHasher>>,
    /// The address of the function at each place.
    places: Vec<usize>,
    /// The place that is used next when all are taken.
    next: usize,
    number: u64,
}

struct Known {
    definition: Arc<Definition>,
    /// The name of the function; none for a partial call, whose parts are compared each time.
    name: Option<Arc<Name>>,
}

/// The functions that may be defined.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Defined {
    /// Functions whose name is found without Python code.
    Found,
    Named,
    /// Functions with a name, and partial calls.
    All,
}

impl Functions {
    /// Returns the definition of a function, if it can be defined: the function is found under its name.
    ///
    /// # Errors
    /// The exception of looking at the function.
    fn define(
        &self,
        function: &Bound<'_, PyAny>,
        defined: Defined,
    ) -> PyResult<Option<Arc<Definition>>> {
        let py = function.py();
        let address = function.as_ptr().addr();
        // Without the lock, as looking a name up may detach.
        if let Some((definition, name)) = self.known(address)
            && name.is_name_of(function)
            && name.is_found(function)
        {
            return Ok(Some(definition));
        }
        let (name, bytes) = match Name::of(function)? {
            Some(name) => {
                let may_call = defined != Defined::Found;
                if !(name.is_found(function) || may_call && name.stands_for(function)?) {
                    // It is for the pickling of the whole call to tell.
                    return Ok(None);
                }
                let bytes = name.to_bytes(py).map(|bytes| Callee::of_name(&bytes));
                (Some(name), bytes)
            }
            None if defined == Defined::All => {
                let bytes = partials::to_bytes(function)?;
                (None, bytes.map(|bytes| Callee::of_partial(&bytes)))
            }
            None => return Ok(None),
        };
        let Some(bytes) = bytes else {
            return Ok(None);
        };
        if bytes.len() > Definition::LONGEST {
            return Ok(None);
        }
        let mut table = self.lock();
        if let Some(known) = table.by_address.get(&address)
            && known.definition.bytes == bytes
        {
            return Ok(Some(Arc::clone(&known.definition)));
        }
        let place = if table.places.len() < usize::from(Definition::PLACES) {
            table.places.push(address);
            table.places.len() - 1
        } else {
            let place = table.next;
            table.next = (place + 1) % table.places.len();
            place
        };
        table.number += 1;
        let definition = Arc::new(Definition {
            place: u16::try_from(place)?,
            number: table.number,
            bytes,
        });
        let former = std::mem::replace(&mut table.places[place], address);
        let replaced = (former != address).then(|| table.by_address.remove(&former));
        let known = Known {
            definition: Arc::clone(&definition),
            name: name.map(Arc::new),
        };
        let raced = table.by_address.insert(address, known);
        drop(table);
        // Without the lock, as Python code may run.
        drop((replaced, raced));
        Ok(Some(definition))
    }

    /// Returns the definition and the name of the function that was at an address.
    fn known(&self, address: usize) -> Option<(Arc<Definition>, Arc<Name>)> {
        let table = self.lock();
        let known = table.by_address.get(&address)?;
        let name = known.name.as_ref()?;
        Some((Arc::clone(&known.definition), Arc::clone(name)))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Table> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns a call as bytes, if that takes no time and no foreign code. That is so if its function is
    /// found by its name, and its arguments are plain.
    ///
    /// # Errors
    /// The exception of looking at the function.
    pub(crate) fn pickle_plain(
        &self,
        function: &Bound<'_, PyAny>,
        arguments: &Bound<'_, PyTuple>,
        keywords: Option<&Bound<'_, PyDict>>,
        pickling: &Pickling,
    ) -> PyResult<Option<Pickled>> {
        let keywords = keywords.filter(|keywords| !keywords.is_empty());
        let mut size = Size::default();
        let is_plain = arguments.is_empty() || size.adds(arguments, DEPTH);
        if !is_plain || !keywords.is_none_or(|keywords| size.adds(keywords, DEPTH)) {
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

    fn definition(
        &self,
        function: &Bound<'_, PyAny>,
        defined: Defined,
    ) -> PyResult<Option<Arc<Definition>>> {
        if picklers::is_original(function.py())? {
            self.define(function, defined)
        } else {
            Ok(None)
        }
    }

    /// Returns the definition of a function that is called for many items, if it can be defined.
    ///
    /// # Errors
    /// The exception of looking at the function.
    pub(crate) fn definition_for_items(
        &self,
        function: &Bound<'_, PyAny>,
    ) -> PyResult<Option<Arc<Definition>>> {
        self.definition(function, Defined::All)
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

    /// Returns the pickle of an object, and its out-of-band buffers. If there are any, the pickle begins with
    /// their table.
    fn dumps(&self, object: &Bound<'_, PyAny>) -> PyResult<(Argument, Option<Attachment>)> {
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
pub(crate) fn plain<'py>(object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyBytes>> {
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

/// The depth to which plain containers may be nested.
const DEPTH: u32 = 3;

/// The size of plain values: numbers, texts, bytes, and containers of these. Nothing can be
/// registered for them, and no Python code runs to pickle or unpickle them.
#[derive(Default)]
struct Size {
    /// The number of values and containers.
    values: usize,
    /// The length of the bytes among them.
    bytes: usize,
    /// The length of the texts among them, in characters.
    characters: usize,
}

impl Size {
    /// The number, or length, of values above which an object does not count as plain, as pickling it takes
    /// time.
    const MOST: usize = 4096;
    const LONGEST: usize = 1024 * 1024;

    /// Adds a value. Returns false if the value is not plain, or too much.
    fn adds(&mut self, object: &Bound<'_, PyAny>, depth: u32) -> bool {
        self.values += 1;
        if object.is_none()
            || object.is_exact_instance_of::<PyInt>()
            || object.is_exact_instance_of::<PyFloat>()
            || object.is_exact_instance_of::<PyBool>()
        {
            return true;
        }
        if let Ok(text) = object.cast_exact::<PyString>() {
            self.characters += text.len().unwrap_or(0);
            return self.characters <= Self::LONGEST;
        }
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            self.bytes += bytes.as_bytes().len();
            return true;
        }
        if depth == 0 {
            return false;
        }
        if let Ok(tuple) = object.cast_exact::<PyTuple>() {
            self.has_room(tuple.len())
                && tuple
                    .iter_borrowed()
                    .all(|item| self.adds(&item, depth - 1))
        } else if let Ok(list) = object.cast_exact::<PyList>() {
            self.has_room(list.len())
                && items_of(list)
                    .is_ok_and(|items| items.iter().all(|item| self.adds(&item, depth - 1)))
        } else if let Ok(dict) = object.cast_exact::<PyDict>() {
            self.has_room(dict.len())
                && pairs_of(dict).is_ok_and(|pairs| {
                    pairs.iter().all(|(key, value)| {
                        self.adds(&key, depth - 1) && self.adds(&value, depth - 1)
                    })
                })
        } else {
            false
        }
    }

    fn has_room(&self, more: usize) -> bool {
        self.values + more <= Self::MOST
    }
}

/// Bytes that stay where Python has them.
struct InPython {
    start: *const u8,
    length: usize,
    object: Option<Py<PyBytes>>,
}

impl Drop for InPython {
    fn drop(&mut self) {
        // The engine may hold a lock, under which no reference is given up.
        if let Some(object) = self.object.take() {
            release_object(object.into_any());
        }
    }
}

// SAFETY: the bytes of a `bytes` object never change, and it is kept.
unsafe impl Send for InPython {}
// SAFETY: the bytes of a `bytes` object never change, and it is kept.
unsafe impl Sync for InPython {}

impl AsRef<[u8]> for InPython {
    fn as_ref(&self) -> &[u8] {
        // SAFETY: `start` and `length` are those of the bytes of `object`, which is kept and never changes.
        unsafe { slice::from_raw_parts(self.start, self.length) }
    }
}

fn argument_of(pickle: &Bound<'_, PyBytes>) -> Argument {
    /// The length up to which copying is cheaper than keeping the object.
    const COPIED: usize = 16 * 1024;
    let bytes = pickle.as_bytes();
    if bytes.len() <= COPIED {
        return Argument::Own(bytes.to_vec());
    }
    Argument::Shared(Arc::new(InPython {
        start: bytes.as_ptr(),
        length: bytes.len(),
        object: Some(pickle.clone().unbind()),
    }))
}
