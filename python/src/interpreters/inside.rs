//! The other side of a visit: code that runs in the interpreter of a worker. See `visit.rs` for its rules.
//!
//! The interpreter has a module of ours, [`MODULE`], with the functions that the worker's calls need. The module also
//! keeps the outcome of a call if that is no plain value. Such an outcome leaves the interpreter by the standard
//! library's way: a call of [`take_result`] returns the result, a call of [`raise_exception`] raises the
//! exception. Functions of C have no frame, so that tracebacks are as without them.

use crate::interpreters::copying;
use pyo3::exceptions::PyLookupError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyFunction, PyList, PyModule, PyString, PyTuple};
use std::ptr;

/// The name of the module in the interpreters of workers.
const MODULE: &str = "_concurrent_futures_worker";

/// The module's list of functions, each with its module and its name, or with two times None.
const FUNCTIONS: &str = "functions";

/// The name of the main program's module, where the interpreter executes the program.
const MAIN_PROGRAM: &str = "<fake __main__>";

/// The module's place for the outcome of a call.
const OUTCOME: &str = "outcome";

/// The way in which a function got into the interpreter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// As code: the function uses no global variables.
    Code,
    /// By a name, which stands for the function as long as the module has the name.
    Name,
    /// By a name in `__main__`. The interpreter has executed the main program for it, once, and never looks its own
    /// `__main__` up.
    Main,
}

impl Kind {
    /// Returns the kind with the number that [`remember`] has returned.
    pub(super) fn of(number: u8) -> Option<Self> {
        [Self::Code, Self::Name, Self::Main]
            .into_iter()
            .find(|kind| *kind as u8 == number)
    }
}

/// The outcome of a call.
pub(super) enum Reply {
    /// The result, a plain value, as bytes.
    Plain(Vec<u8>),
    /// The result, which waits in the module.
    Result,
    /// The exception, which waits in the module.
    Exception,
    /// No outcome, as there was no memory to keep it.
    Lost,
    /// The function or the module is not there, or not under its name: nothing was called.
    Unknown,
}

/// Makes the module.
///
/// # Errors
/// The exceptions of making it.
pub(super) fn set_up(py: Python<'_>) -> PyResult<()> {
    let module = PyModule::new(py, MODULE)?;
    let methods = METHODS.0.as_ptr().cast_mut();
    // SAFETY: attached; a module, and a table that lives for ever and ends with zeros.
    if unsafe { ffi::PyModule_AddFunctions(module.as_ptr(), methods) } < 0 {
        return Err(PyErr::fetch(py));
    }
    module.dict().set_item(FUNCTIONS, PyList::empty(py))?;
    if let Some(ours) = own_dict(py) {
        ours.set_item(MODULE, &module)?;
    }
    publish(&module)
}

/// Returns the dictionary of the current interpreter for data of extension modules.
fn own_dict(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: attached; a borrowed reference, or null.
    let ours = unsafe {
        let ours = ffi::PyInterpreterState_GetDict(ffi::PyInterpreterState_Get());
        Bound::from_borrowed_ptr_or_opt(py, ours)
    };
    ours?.cast_into().ok()
}

/// Puts the module where unpickling finds it.
fn publish(module: &Bound<'_, PyModule>) -> PyResult<()> {
    modules(module.py()).map_or(Ok(()), |modules| modules.set_item(MODULE, module))
}

fn modules(py: Python<'_>) -> Option<Bound<'_, PyDict>> {
    // SAFETY: attached; a borrowed reference, or null.
    let modules = unsafe { Bound::from_borrowed_ptr_or_opt(py, ffi::PyImport_GetModuleDict()) };
    modules?.cast_into_exact().ok()
}

/// Returns the module of the current interpreter.
fn module(py: Python<'_>) -> Option<Bound<'_, PyModule>> {
    let module = own_dict(py)?.get_item(MODULE).ok()??;
    module.cast_into().ok()
}

/// Calls a function that the interpreter has remembered, with arguments from [`copying::append_call`].
pub(super) fn call(py: Python<'_>, place: usize, mut arguments: &[u8]) -> Reply {
    let Some(module) = module(py) else {
        return Reply::Unknown;
    };
    let Some(function) = function(&module, place) else {
        return Reply::Unknown;
    };
    let Ok((arguments, keywords)) = copying::read_call(py, &mut arguments) else {
        return Reply::Unknown;
    };
    let called = function.call(&arguments, keywords.as_ref());
    drop((function, arguments, keywords));
    let (reply, outcome) = match called {
        Ok(result) => {
            let mut bytes = Vec::new();
            if copying::append(&result, &mut bytes) {
                return Reply::Plain(bytes);
            }
            (Reply::Result, result)
        }
        Err(error) => {
            let exception = error.into_value(py).into_bound(py).into_any();
            (Reply::Exception, exception)
        }
    };
    let kept = module.dict().set_item(OUTCOME, outcome);
    // Programs may empty the dictionary of modules.
    match kept.and_then(|()| publish(&module)) {
        Ok(()) => reply,
        Err(_) => Reply::Lost,
    }
}

/// Returns a function by its place, if its name still stands for it.
fn function<'py>(module: &Bound<'py, PyModule>, place: usize) -> Option<Bound<'py, PyAny>> {
    let functions = module.dict().get_item(FUNCTIONS).ok()??;
    let entry = functions.cast_into_exact::<PyList>().ok()?.get_item(place);
    let entry = entry.ok()?.cast_into_exact::<PyTuple>().ok()?;
    let function = entry.get_item(0).ok()?;
    let name = entry.get_item(2).ok()?;
    if name.is_none() {
        return Some(function);
    }
    let found = variable(&entry.get_item(1).ok()?, &name)?;
    found.is(&function).then_some(function)
}

/// Returns a variable of a loaded module. Runs no Python code.
fn variable<'py>(of: &Bound<'py, PyAny>, name: &Bound<'py, PyAny>) -> Option<Bound<'py, PyAny>> {
    let module = modules(of.py())?.get_item(of).ok()??;
    let module = module.cast_into_exact::<PyModule>().ok()?;
    module.dict().get_item(name).ok()?
}

/// Keeps a function at a place, and returns the number of its [`Kind`].
fn keep(module: &Bound<'_, PyModule>, place: usize, function: &Bound<'_, PyAny>) -> PyResult<u8> {
    let py = module.py();
    let (of, name) = (
        function.getattr("__module__")?,
        function.getattr("__qualname__")?,
    );
    let are_names =
        of.is_exact_instance_of::<PyString>() && name.is_exact_instance_of::<PyString>();
    let found = are_names.then(|| variable(&of, &name)).flatten();
    let none = || py.None().into_bound(py);
    let (kind, of, name) = if found.is_some_and(|found| found.is(function)) {
        (Kind::Name, of, name)
    } else if uses_main(function) {
        (Kind::Code, none(), none())
    } else if are_names && of.extract::<&str>()? == MAIN_PROGRAM {
        (Kind::Main, none(), none())
    } else {
        return Err(PyLookupError::new_err("the function has no name here"));
    };
    let functions = module.getattr(FUNCTIONS)?.cast_into::<PyList>()?;
    while functions.len() <= place {
        functions.append(py.None())?;
    }
    functions.set_item(place, (function, of, name))?;
    Ok(kind as u8)
}

/// Returns whether the globals of a function are those of `__main__`, as those of a function that came as code.
fn uses_main(function: &Bound<'_, PyAny>) -> bool {
    if !function.is_exact_instance_of::<PyFunction>() {
        return false;
    }
    let main = modules(function.py()).and_then(|modules| modules.get_item("__main__").ok()?);
    let Some(Ok(main)) = main.map(Bound::cast_into::<PyModule>) else {
        return false;
    };
    // SAFETY: attached; a function, which lends its globals.
    let globals = unsafe { ffi::PyFunction_GetGlobals(function.as_ptr()) };
    ptr::eq(globals, main.dict().as_ptr())
}

/// The functions of the module.
struct Methods([ffi::PyMethodDef; 4]);

// SAFETY: the table is never changed.
unsafe impl Sync for Methods {}

static METHODS: Methods = Methods([
    ffi::PyMethodDef {
        ml_name: c"remember".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: remember,
        },
        ml_flags: ffi::METH_VARARGS,
        ml_doc: ptr::null(),
    },
    ffi::PyMethodDef {
        ml_name: c"take_result".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: take_result,
        },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: ptr::null(),
    },
    ffi::PyMethodDef {
        ml_name: c"raise_exception".as_ptr(),
        ml_meth: ffi::PyMethodDefPointer {
            PyCFunction: raise_exception,
        },
        ml_flags: ffi::METH_NOARGS,
        ml_doc: ptr::null(),
    },
    ffi::PyMethodDef::zeroed(),
]);

/// Keeps a function at a place: `remember(place, function)`.
///
/// # Safety
/// Called by an interpreter, as a function of a module.
unsafe extern "C" fn remember(
    module: *mut ffi::PyObject,
    arguments: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: the interpreter has attached the thread, and lends module and arguments for the call.
    let (py, module, arguments) = unsafe {
        let py = Python::assume_attached();
        (
            py,
            Bound::from_borrowed_ptr(py, module),
            Bound::from_borrowed_ptr(py, arguments),
        )
    };
    let remembered = (|| {
        let (place, function) = arguments.extract::<(usize, Bound<'_, PyAny>)>()?;
        keep(module.cast::<PyModule>()?, place, &function)
    })();
    match remembered {
        // SAFETY: attached.
        Ok(kind) => unsafe { ffi::PyLong_FromLong(kind.into()) },
        Err(error) => {
            error.restore(py);
            ptr::null_mut()
        }
    }
}

/// Takes the outcome of the last call.
///
/// # Safety
/// As for [`remember`].
unsafe fn take_outcome<'py>(module: *mut ffi::PyObject) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: the interpreter has attached the thread, and lends the module for the call.
    let module = unsafe { Bound::from_borrowed_ptr(Python::assume_attached(), module) };
    let module = module.cast::<PyModule>()?;
    let outcome = module.getattr(OUTCOME)?;
    module.delattr(OUTCOME)?;
    Ok(outcome)
}

/// Returns the result of the last call.
///
/// # Safety
/// As for [`remember`].
unsafe extern "C" fn take_result(
    module: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `remember`.
    match unsafe { take_outcome(module) } {
        Ok(result) => result.into_ptr(),
        Err(error) => {
            // SAFETY: as for `remember`.
            error.restore(unsafe { Python::assume_attached() });
            ptr::null_mut()
        }
    }
}

/// Raises the exception of the last call.
///
/// # Safety
/// As for [`remember`].
unsafe extern "C" fn raise_exception(
    module: *mut ffi::PyObject,
    _: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as for `remember`.
    unsafe {
        let error = match take_outcome(module) {
            Ok(exception) => PyErr::from_value(exception),
            Err(error) => error,
        };
        error.restore(Python::assume_attached());
    }
    ptr::null_mut()
}
