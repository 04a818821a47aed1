//! The context of a worker: its interpreter, in which it runs the calls.
//!
//! The context is the standard library's `WorkerContext`, which makes the interpreter, runs the initializer and
//! closes the interpreter. Its `run` makes any call. If a function goes by its name
//! or code, calls with plain arguments take a shorter way, without a pickle: a visit (`visit.rs`). All else,
//! and all that fails, takes the standard library's way.

use crate::dump::running::Running;
use crate::future::call::Call;
use crate::interp::{interned, stdlib};
use crate::interpreters::copying;
use crate::interpreters::inside::{self, Kind, Reply};
use crate::interpreters::known::{Found, KnownFunctions, Sent, Traits};
use crate::interpreters::stack;
use crate::interpreters::visit::visit;
use crate::pickle::values;
use pyo3::exceptions::{PyException, PyRuntimeError};
use pyo3::panic::PanicException;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use std::cell::{Cell, RefCell};
use std::rc::Rc;

thread_local! {
    /// The context of the calling worker.
    static CURRENT: RefCell<Option<Rc<Context>>> = const { RefCell::new(None) };
}

/// The context of a worker.
struct Context {
    /// The standard library's context.
    standard: Py<PyAny>,
    /// The number of the interpreter; none if the interpreter cannot be visited.
    id: Cell<Option<i64>>,
    functions: RefCell<KnownFunctions>,
}

/// Makes the context of the calling worker, with a new interpreter in which the initializer has run.
///
/// # Errors
/// Exceptions of making the interpreter, and those of the initializer.
pub(crate) fn begin(create: &Bound<'_, PyAny>) -> PyResult<()> {
    let py = create.py();
    let standard = create.call0()?;
    standard.call_method0(interned::initialize(py))?;
    let context = Context {
        id: Cell::new(set_up(&standard)),
        standard: standard.unbind(),
        functions: RefCell::new(KnownFunctions::new()),
    };
    CURRENT.set(Some(Rc::new(context)));
    Ok(())
}

/// Prepares an interpreter for visits, and returns its number.
fn set_up(context: &Bound<'_, PyAny>) -> Option<i64> {
    let py = context.py();
    // Exceptions are compared with this type, which must not be made during a visit.
    py.get_type::<PanicException>();
    let id = (|| {
        let interpreter = context.getattr(interned::interp(py))?;
        interpreter.getattr(interned::id(py))?.extract::<i64>()
    })();
    let id = id.ok()?;
    stack::install(py);
    // SAFETY: `set_up` touches no object of this interpreter.
    unsafe { visit(py, id, |py| inside::set_up(py).is_ok()) }
        .unwrap_or(false)
        .then_some(id)
}

/// Takes the standard library's context from the calling worker, if it has one.
pub(crate) fn take(py: Python<'_>) -> Option<Py<PyAny>> {
    let context = CURRENT.take()?;
    stack::give_back(py);
    Some(context.standard.clone_ref(py))
}

/// Makes a call in the interpreter of the calling worker.
///
/// # Errors
/// The exception of the call, and those of sending it and its outcome.
pub(super) fn run(py: Python<'_>, call: Call) -> PyResult<Bound<'_, PyAny>> {
    let context = CURRENT.with_borrow(Clone::clone);
    let context =
        context.ok_or_else(|| PyRuntimeError::new_err("the worker has no interpreter"))?;
    // A started task is not pending any more.
    let (function, arguments, keywords) = call.start(py);
    let own = function.clone();
    let _running = Running::enter(&own);
    if let Some(id) = context.id.get()
        && let Some(outcome) = context.visit(id, &function, &arguments, keywords.as_ref())
    {
        return outcome;
    }
    let keywords = keywords.unwrap_or_else(|| PyDict::new(py));
    context.run_standard(py, (function, arguments, keywords))
}

impl Context {
    /// Makes a call by the standard library's way.
    fn run_standard<'py>(
        &self,
        py: Python<'py>,
        task: (Bound<'py, PyAny>, Bound<'py, PyTuple>, Bound<'py, PyDict>),
    ) -> PyResult<Bound<'py, PyAny>> {
        self.standard
            .bind(py)
            .call_method1(interned::run(py), (task,))
    }

    /// Makes a call by a visit; none if the call is not for that.
    fn visit<'py>(
        &self,
        id: i64,
        function: &Bound<'py, PyAny>,
        arguments: &Bound<'py, PyTuple>,
        keywords: Option<&Bound<'py, PyDict>>,
    ) -> Option<PyResult<Bound<'py, PyAny>>> {
        let py = function.py();
        let mut bytes = Vec::new();
        if !copying::append_call(arguments, keywords, &mut bytes) {
            return None;
        }
        let place = match self.place(id, function) {
            Ok(place) => place?,
            Err(error) => return Some(Err(error)),
        };
        // SAFETY: `call` touches no object of this interpreter.
        let reply = unsafe { visit(py, id, |py| inside::call(py, place, &bytes)) }?;
        Some(match reply {
            Reply::Plain(bytes) => values::read(py, &mut bytes.as_slice()),
            Reply::Result => self.take_result(py),
            Reply::Exception => stdlib::raise_exception(py).and_then(|raise| {
                let task = (raise.clone(), PyTuple::empty(py), PyDict::new(py));
                self.run_standard(py, task)
            }),
            Reply::Lost => Err(PyRuntimeError::new_err(
                "there was no memory for the outcome",
            )),
            Reply::Unknown => return None,
        })
    }

    /// Returns a result that waits in the interpreter, by the standard library's way.
    fn take_result<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.standard
            .bind(py)
            .getattr(interned::interp(py))?
            .call_method1(interned::call(py), (stdlib::take_result(py)?,))
    }

    /// Returns the place of a function in the interpreter, to which it is sent if necessary; none if the function
    /// cannot be kept.
    ///
    /// # Errors
    /// Exceptions that are no failures of sending, such as those that other threads send.
    fn place(&self, id: i64, function: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let place = match self.functions.borrow_mut().find(function) {
            Found::Kept(place) => return Ok(Some(place)),
            Found::Not => return Ok(None),
            Found::Unsent(place) => place,
        };
        let sent = match send(id, place, function) {
            Ok(sent) => sent,
            Err(error) if error.is_instance_of::<PyException>(function.py()) => Sent::Not,
            Err(error) => return Err(error),
        };
        let is_kept = matches!(sent, Sent::Kept(..));
        // Python code may have run meanwhile, but no other call of this worker.
        let before = self.functions.borrow_mut().note(place, function, sent);
        match before {
            Ok(before) => drop(before),
            // There are no weak references to this object.
            Err(_) => return Ok(None),
        }
        Ok(is_kept.then_some(place))
    }
}

/// Sends a function to an interpreter, which keeps it at a place.
fn send(id: i64, place: usize, function: &Bound<'_, PyAny>) -> PyResult<Sent> {
    let py = function.py();
    let Some(traits) = Traits::of(function)? else {
        return Ok(Sent::Not);
    };
    let call = stdlib::call_in_interpreter(py)?;
    let returned = call.call1((id, stdlib::remember(py)?, (place, function)))?;
    let (kind, failure) = returned.extract::<(Bound<'_, PyAny>, Bound<'_, PyAny>)>()?;
    if !failure.is_none() {
        return Ok(Sent::Not);
    }
    Ok(match Kind::of(kind.extract()?) {
        Some(kind) => Sent::Kept(kind, traits),
        None => Sent::Not,
    })
}
