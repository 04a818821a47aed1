//! Threads that the interpreter ends inside a call of ours, up to CPython 3.13.
//!
//! A daemon thread may run Python code when the interpreter ends: a callback, or the iterable that `map` reads. When
//! such a thread next asks for the interpreter, these versions call `pthread_exit`. The GNU C library then unwinds the
//! thread's stack, and so all frames of Rust that have called Python. Rust lets no unwinding through that is not its
//! own: the whole program would abort. (CPython 3.14 lets such threads sleep. Other C libraries do not unwind.)
//!
//! # Protocol
//! The linker replaces some functions of the interpreter by functions of this file (`--wrap`; `build.rs` reads the
//! names here). These are functions that may run Python code, or attach, called by this module or by PyO3. Each
//! replacement calls the original, with a guard on the stack. The unwinding meets the guard first, and the guard's drop
//! sleeps forever. So such a thread stops where it is, as it does in CPython 3.14. The thread does not hold the
//! interpreter's lock by then.
//!
//! # Invariants
//! 1. Nothing but the end of the interpreter drops a guard. Panics do not reach it, as trampolines catch them.

use crate::interp::attach::stop;
use pyo3::ffi::{Py_buffer, Py_ssize_t, PyGILState_STATE, PyObject, PyThreadState, PyTypeObject};
use std::ffi::{c_double, c_int};
use std::mem;
use std::thread;

/// Stops the thread that drops it in an unwinding which is not Rust's.
struct Guard;

impl Drop for Guard {
    fn drop(&mut self) {
        if !thread::panicking() {
            stop();
        }
    }
}

/// Defines the functions that take the place of the interpreter's.
macro_rules! guarded {
    ($($name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)?;)*) => {$(
        const _: () = {
            unsafe extern "C-unwind" {
                #[link_name = concat!("__real_", stringify!($name))]
                fn real($($argument: $type),*) $(-> $result)?;
            }

            /// # Safety
            /// Those of the interpreter's function.
            #[unsafe(export_name = concat!("__wrap_", stringify!($name)))]
            unsafe extern "C-unwind" fn wrap($($argument: $type),*) $(-> $result)? {
                let guard = Guard;
                // SAFETY: the caller's promises are those that the function asks for.
                let result = unsafe { real($($argument),*) };
                mem::forget(guard);
                result
            }
        };
    )*};
}

type Object = *mut PyObject;

guarded! {
    // Attaching.
    PyThreadState_Swap(state: *mut PyThreadState) -> *mut PyThreadState;
    PyEval_RestoreThread(state: *mut PyThreadState);
    PyGILState_Ensure() -> PyGILState_STATE;
    // The end of a thread's state: its locals have finalizers.
    PyGILState_Release(state: PyGILState_STATE);
    PyErr_CheckSignals() -> c_int;
    // Calls.
    PyObject_Call(callable: Object, arguments: Object, keywords: Object) -> Object;
    PyObject_CallNoArgs(callable: Object) -> Object;
    PyObject_CallOneArg(callable: Object, argument: Object) -> Object;
    PyObject_Vectorcall(callable: Object, arguments: *const Object, count: usize, names: Object) -> Object;
    PyObject_VectorcallDict(callable: Object, arguments: *const Object, count: usize, keywords: Object) -> Object;
    PyObject_VectorcallMethod(name: Object, arguments: *const Object, count: usize, names: Object) -> Object;
    PyImport_Import(name: Object) -> Object;
    // The end of an object: its `__del__`.
    _Py_Dealloc(object: Object);
    PyBuffer_Release(view: *mut Py_buffer);
    PyObject_ClearWeakRefs(object: Object);
    PyThreadState_Clear(state: *mut PyThreadState);
    // The beginning of an object: garbage may be collected.
    PyType_GenericAlloc(class: *mut PyTypeObject, items: Py_ssize_t) -> Object;
    PyDict_New() -> Object;
    PyList_New(length: Py_ssize_t) -> Object;
    PyTuple_New(length: Py_ssize_t) -> Object;
    // Methods with special names.
    PyIter_Next(iterator: Object) -> Object;
    PyObject_GetIter(object: Object) -> Object;
    PyObject_LengthHint(object: Object, default: Py_ssize_t) -> Py_ssize_t;
    PyObject_Size(object: Object) -> Py_ssize_t;
    PyObject_GetAttr(object: Object, name: Object) -> Object;
    PyObject_SetAttr(object: Object, name: Object, value: Object) -> c_int;
    PyObject_GetItem(object: Object, key: Object) -> Object;
    PyObject_SetItem(object: Object, key: Object, value: Object) -> c_int;
    PyObject_DelItem(object: Object, key: Object) -> c_int;
    PyObject_IsTrue(object: Object) -> c_int;
    PyObject_IsSubclass(class: Object, base: Object) -> c_int;
    PyObject_RichCompare(one: Object, other: Object, operation: c_int) -> Object;
    PyObject_Repr(object: Object) -> Object;
    PyObject_Str(object: Object) -> Object;
    PyOS_FSPath(path: Object) -> Object;
    PyObject_GetBuffer(object: Object, view: *mut Py_buffer, flags: c_int) -> c_int;
    PyMemoryView_FromObject(object: Object) -> Object;
    PyNumber_Add(one: Object, other: Object) -> Object;
    PyNumber_Subtract(one: Object, other: Object) -> Object;
    PyNumber_Remainder(one: Object, other: Object) -> Object;
    PyNumber_Index(object: Object) -> Object;
    PyFloat_AsDouble(object: Object) -> c_double;
    PySequence_Contains(sequence: Object, item: Object) -> c_int;
    // Keys have `__hash__` and `__eq__`.
    PyDict_SetItem(dict: Object, key: Object, value: Object) -> c_int;
    PyDict_DelItem(dict: Object, key: Object) -> c_int;
    PyDict_Contains(dict: Object, key: Object) -> c_int;
    PySet_New(items: Object) -> Object;
    PySet_Add(set: Object, item: Object) -> c_int;
    PySet_Discard(set: Object, item: Object) -> c_int;
    // Exceptions, which may be made, and hooks that are called with them.
    PyErr_SetObject(class: Object, value: Object);
    PyErr_WriteUnraisable(object: Object);
    PyErr_PrintEx(set: c_int);
    PyTraceBack_Print(traceback: Object, file: Object) -> c_int;
}

#[cfg(Py_3_13)]
guarded! {
    PyObject_GetOptionalAttr(object: Object, name: Object, result: *mut Object) -> c_int;
    PyObject_DelAttr(object: Object, name: Object) -> c_int;
    PyDict_GetItemRef(dict: Object, key: Object, result: *mut Object) -> c_int;
}

#[cfg(not(Py_3_13))]
guarded! {
    PyDict_GetItemWithError(dict: Object, key: Object) -> Object;
}

#[cfg(not(Py_3_12))]
guarded! {
    PyErr_NormalizeException(class: *mut Object, value: *mut Object, traceback: *mut Object);
    _PyObject_MakeTpCall(
        state: *mut PyThreadState, callable: Object, arguments: *const Object, count: Py_ssize_t, keywords: Object
    ) -> Object;
}

/// Takes the place of the function that returns how to call an object: by a function of this file. Up to CPython 3.11,
/// `PyObject_Vectorcall` is not called, but made of this one.
#[cfg(not(Py_3_12))]
const _: () = {
    use pyo3::ffi::vectorcallfunc;

    unsafe extern "C" {
        #[link_name = "__real_PyVectorcall_Function"]
        fn real(callable: Object) -> Option<vectorcallfunc>;
        // The linker leads it to the one in the list.
        fn PyObject_Vectorcall(
            callable: Object,
            arguments: *const Object,
            count: usize,
            names: Object,
        ) -> Object;
    }

    /// # Safety
    /// Those of the interpreter's function.
    #[unsafe(export_name = "__wrap_PyVectorcall_Function")]
    unsafe extern "C" fn wrap(callable: Object) -> Option<vectorcallfunc> {
        // SAFETY: the caller's promises are those that the function asks for.
        unsafe { real(callable) }.map(|_| PyObject_Vectorcall as vectorcallfunc)
    }
};
