//! A place where a name was found; while the dictionaries on the way are unchanged, nothing is looked up
//! again.
//!
//! Up to Python 3.13, each change of a dictionary gives it a version that no dictionary has had. From 3.14
//! on there are no versions, and each look-up is made. So it is without an interpreter lock: another thread could
//! change a dictionary between the look at its version and the use of the object.
//!
//! # Invariants
//! 1. The dictionary of modules is the interpreter's from its beginning to its end, and is never freed. While
//!    its version is the same, it has the same modules, so that it keeps the dictionary of variables.
//! 2. While the version of that is the same, it keeps the object that was found in it.
//! 3. Only the thread with the interpreter lock looks at a place, and keeps the lock meanwhile.

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyDict;
use std::cell::Cell;
use std::sync::OnceLock;

/// The beginning of every dictionary.
#[repr(C)]
struct Head {
    object: ffi::PyObject,
    used: ffi::Py_ssize_t,
    version: u64,
}

/// The address of a dictionary, and its version.
#[derive(Clone, Copy)]
struct Version {
    head: *const Head,
    version: u64,
}

impl Version {
    /// # Safety
    /// Attached; a dictionary.
    unsafe fn of(dictionary: *mut ffi::PyObject) -> Self {
        let head = dictionary.cast_const().cast::<Head>();
        // SAFETY: attached, and the object is a dictionary; all versions of Python for which this is called have
        // these fields.
        let version = unsafe { (*head).version };
        Self { head, version }
    }

    /// Returns whether the dictionary is unchanged.
    ///
    /// # Safety
    /// Attached; the dictionary is alive.
    unsafe fn is_current(self) -> bool {
        // SAFETY: attached, and the dictionary is alive.
        unsafe { (*self.head).version == self.version }
    }
}

/// An object that a variable of a module refers to.
#[derive(Clone, Copy)]
struct Seen {
    modules: Version,
    variables: Version,
    object: *mut ffi::PyObject,
}

impl Seen {
    fn is_current(&self) -> bool {
        // SAFETY: attached. The dictionary of modules is never freed (invariant 1). As long as it is the
        // same, it keeps the other one.
        unsafe { self.modules.is_current() && self.variables.is_current() }
    }
}

/// The place where a name was found last, if there are versions.
#[derive(Default)]
pub(crate) struct LastSeen(Cell<Option<Seen>>);

// SAFETY: only attached threads look at it and at the objects behind the pointers, one at a time (invariant 3).
unsafe impl Send for LastSeen {}
// SAFETY: as for `Send`.
unsafe impl Sync for LastSeen {}

impl LastSeen {
    fn get(&self, _: Python<'_>) -> Option<Seen> {
        if cfg!(Py_GIL_DISABLED) {
            return None;
        }
        self.0.get().filter(Seen::is_current)
    }

    /// Returns the object, if its name still stands for it.
    pub(crate) fn object<'py>(&self, py: Python<'py>) -> Option<Bound<'py, PyAny>> {
        // SAFETY: the dictionary keeps the object (invariant 2).
        self.get(py)
            .map(|seen| unsafe { Bound::from_borrowed_ptr(py, seen.object) })
    }

    /// Returns whether the name still stands for this object.
    pub(crate) fn is(&self, object: &Bound<'_, PyAny>) -> bool {
        self.get(object.py())
            .is_some_and(|seen| seen.object == object.as_ptr())
    }

    pub(crate) fn forget(&self) {
        if !cfg!(Py_GIL_DISABLED) {
            self.0.set(None);
        }
    }

    /// Notes an object that was just found, if dictionaries have versions.
    ///
    /// # Safety
    /// `modules` is the interpreter's dictionary of modules, `variables` that of one of its modules. If there is an
    /// interpreter lock, `variables` refers to the object.
    pub(crate) unsafe fn note(
        &self,
        modules: &Bound<'_, PyDict>,
        variables: &Bound<'_, PyDict>,
        object: &Bound<'_, PyAny>,
    ) {
        if cfg!(Py_GIL_DISABLED) || !keep_modules(modules) {
            return;
        }
        // SAFETY: attached; `modules` and `variables` are dictionaries, and this Python has versions.
        let (modules, variables) = unsafe {
            (
                Version::of(modules.as_ptr()),
                Version::of(variables.as_ptr()),
            )
        };
        self.0.set(Some(Seen {
            modules,
            variables,
            object: object.as_ptr(),
        }));
    }
}

/// Keeps the interpreter's dictionary of modules from being freed. Returns false if dictionaries have no
/// versions, or if it is another dictionary than at first.
fn keep_modules(modules: &Bound<'_, PyDict>) -> bool {
    static KEPT: OnceLock<Option<Py<PyDict>>> = OnceLock::new();
    let kept = KEPT.get_or_init(|| {
        let has_versions = modules.py().version_info() < (3, 14);
        has_versions.then(|| modules.clone().unbind())
    });
    kept.as_ref().is_some_and(|kept| kept.is(modules))
}
