//! Fields for references to Python objects, in objects that several threads may use.
//!
//! # Invariants
//! 1. A thread that reads a field counts a reference of its own before it leaves the critical section of the
//!    field's owner. It does nothing in between that could suspend the critical section.
//! 2. A reference that was taken out of a field is given up only after a critical section of the owner. If the
//!    owner is being freed, no other thread reads the field.

use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::{PyTraverseError, PyVisit, ffi};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A reference that can be replaced at any time, or none.
///
/// It is read and written in critical sections of the object that it belongs to, which
/// cost nothing where there is a global interpreter lock.
pub(crate) struct Field(AtomicPtr<ffi::PyObject>);

impl Field {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Returns whether there is a reference.
    pub(crate) fn is_set(&self) -> bool {
        !self.0.load(Ordering::Acquire).is_null()
    }

    pub(crate) fn get<'py>(&self, owner: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        if !self.is_set() {
            return None;
        }
        with_critical_section(owner, || {
            let object = self.0.load(Ordering::Acquire);
            // SAFETY: the field holds a reference of its own, which no thread takes away during the critical
            // section.
            unsafe { Bound::from_borrowed_ptr_or_opt(owner.py(), object) }
        })
    }

    /// Puts a reference into the field, and returns the former one.
    pub(crate) fn replace<'py>(
        &self,
        owner: &Bound<'py, PyAny>,
        new: Option<Bound<'py, PyAny>>,
    ) -> Option<Bound<'py, PyAny>> {
        let new = new.map_or(ptr::null_mut(), Bound::into_ptr);
        with_critical_section(owner, || {
            let old = self.0.swap(new, Ordering::AcqRel);
            // SAFETY: the reference was the field's, and is the caller's now.
            unsafe { Bound::from_owned_ptr_or_opt(owner.py(), old) }
        })
    }

    /// Puts a reference into a field that is usually empty. Enters no critical section, so that the caller may
    /// hold a lock. The caller drops the former reference without a lock.
    pub(crate) fn fill<'py>(
        &self,
        owner: &Bound<'py, PyAny>,
        new: Bound<'py, PyAny>,
    ) -> Former<'py> {
        let old = self.0.swap(new.into_ptr(), Ordering::AcqRel);
        Former(NonNull::new(old).map(|old| (owner.clone(), old)))
    }

    /// Takes the reference out of an object that is being freed.
    pub(crate) fn take(&self) -> Option<Py<PyAny>> {
        let old = NonNull::new(self.0.swap(ptr::null_mut(), Ordering::AcqRel))?;
        // SAFETY: objects are cleared and deallocated by attached threads; the reference
        // was the field's.
        Some(unsafe { Bound::from_owned_ptr(Python::assume_attached(), old.as_ptr()) }.unbind())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: while the garbage collector runs, no thread changes the field; the reference is not given
        // up.
        let object = unsafe { borrowed(self.0.load(Ordering::Acquire)) };
        object
            .as_ref()
            .map_or(Ok(()), |object| visit.call(&**object))
    }
}

/// The former reference of a field that was filled. Dropping it waits for threads that are in the middle of
/// reading the field, and may run Python code.
#[must_use]
pub(crate) struct Former<'py>(Option<(Bound<'py, PyAny>, NonNull<ffi::PyObject>)>);

impl Drop for Former<'_> {
    fn drop(&mut self) {
        let Some((owner, old)) = self.0.take() else {
            return;
        };
        // A reader that saw the former reference has counted its own before the critical section is left.
        with_critical_section(&owner, || {});
        // SAFETY: the reference was the field's, and no other thread has it.
        drop(unsafe { Bound::from_owned_ptr(owner.py(), old.as_ptr()) });
    }
}

/// A reference that is not counted.
///
/// # Safety
/// The object stays until this is gone.
unsafe fn borrowed(object: *mut ffi::PyObject) -> Option<mem::ManuallyDrop<Py<PyAny>>> {
    let object = NonNull::new(object)?;
    // SAFETY: `Py` is a transparent wrapper around a non-null pointer; it is not dropped.
    Some(mem::ManuallyDrop::new(unsafe {
        mem::transmute::<NonNull<ffi::PyObject>, Py<PyAny>>(object)
    }))
}

impl Drop for Field {
    fn drop(&mut self) {
        drop(self.take());
    }
}
