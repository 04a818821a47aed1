//! References to Python objects, in objects that several threads may use.

use pyo3::prelude::*;
use pyo3::sync::critical_section::with_critical_section;
use pyo3::{PyTraverseError, PyVisit, ffi};
use std::mem;
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, Ordering};

/// A reference that can be replaced at any time; or none.
///
/// It is read and written in critical sections of the object that it belongs to, which
/// cost nothing where there is a global interpreter lock.
pub(crate) struct Field(AtomicPtr<ffi::PyObject>);

impl Field {
    pub(crate) const fn empty() -> Self {
        Self(AtomicPtr::new(ptr::null_mut()))
    }

    /// Whether there is a reference.
    pub(crate) fn is_set(&self) -> bool {
        !self.0.load(Ordering::Acquire).is_null()
    }

    pub(crate) fn get<'py>(&self, owner: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
        with_critical_section(owner, || {
            let object = self.0.load(Ordering::Acquire);
            // SAFETY: what is in the field is a reference of ours, which nobody takes
            // away during the critical section.
            unsafe { Bound::from_borrowed_ptr_or_opt(owner.py(), object) }
        })
    }

    /// Puts a reference into the field, and returns what was there.
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

    /// Puts a reference into a field that is empty, mostly, which takes no critical section:
    /// there is nothing that a reader could be looking at.
    pub(crate) fn fill<'py>(&self, owner: &Bound<'py, PyAny>, new: Bound<'py, PyAny>) {
        let filled = self.0.compare_exchange(
            ptr::null_mut(),
            new.as_ptr(),
            Ordering::AcqRel,
            Ordering::Acquire,
        );
        if filled.is_ok() {
            // The reference is the field's now.
            mem::forget(new);
        } else {
            drop(self.replace(owner, Some(new)));
        }
    }

    /// Takes the reference out, in an object that is on its way out.
    pub(crate) fn take(&self) -> Option<Py<PyAny>> {
        let old = NonNull::new(self.0.swap(ptr::null_mut(), Ordering::AcqRel))?;
        // SAFETY: objects are cleared and deallocated by attached threads; the reference
        // was the field's.
        Some(unsafe { Bound::from_owned_ptr(Python::assume_attached(), old.as_ptr()) }.unbind())
    }

    pub(crate) fn traverse(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        // SAFETY: while the garbage collector runs, nobody changes the field; the
        // reference is not given up.
        let object = unsafe { borrowed(self.0.load(Ordering::Acquire)) };
        object
            .as_ref()
            .map_or(Ok(()), |object| visit.call(&**object))
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
