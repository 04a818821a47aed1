//! The table of functions that workers know by a number.
//!
//! Functions that are pickled by reference, as most are, are *defined*: each worker gets their name once, and calls
//! have a number in its place. The table finds the name by the function's address. The table keeps no
//! function. Each call compares the function with the object that its name stands for, so that another
//! function at the same address is noticed.

use crate::interp::addresses::AddressMap;
use crate::pickle::by_name::Name;
use crate::pickle::callee::Callee;
use crate::pickle::{partials, picklers};
use concurrent_futures::engine::Definition;
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};

/// The functions that are defined.
#[derive(Default)]
pub(crate) struct Functions(Mutex<Table>);

#[derive(Default)]
struct Table {
    by_address: AddressMap<Known>,
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
pub(super) enum Defined {
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
    pub(super) fn define(
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

    /// Returns the definition of a function, unless a program has replaced the pickler.
    ///
    /// # Errors
    /// The exception of looking at the function.
    pub(super) fn definition(
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
}
