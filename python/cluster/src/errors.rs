//! The errors of clusters, as the Python code makes exceptions of them.

use concurrent_futures::{SubmitError, TaskError};
use concurrent_futures_cluster::{
    ClusterError, HostInfo, HostLost, NoFunction, NoWorkersError, ObjectStoreError, PoisonTask,
    SessionLost,
};
use pyo3::exceptions::{PyRuntimeError, PyValueError};
use pyo3::prelude::*;

/// The description of an error of a task: the name of a class, the message, and hosts.
pub(crate) type Described = (&'static str, String, Vec<Host>);

/// A host: machine, process id, workers, queue, environment.
pub(crate) type Host = (String, u32, u32, String, String);

pub(crate) fn host(info: &HostInfo) -> Host {
    (
        info.machine().to_owned(),
        info.pid(),
        info.workers(),
        info.queue().to_owned(),
        info.environment().to_owned(),
    )
}

/// Describes the error of a task that no worker has raised.
pub(crate) fn describe(error: &TaskError) -> Described {
    if let TaskError::Failed(cause) = error {
        let cause: &(dyn std::error::Error + 'static) = &**cause;
        if let Some(error) = cause.downcast_ref::<NoWorkersError>() {
            let hosts = error.hosts().iter().map(host).collect();
            return ("NoWorkersError", error.to_string(), hosts);
        }
        let name = if cause.is::<HostLost>() {
            "HostLostError"
        } else if cause.is::<PoisonTask>() {
            "PoisonTaskError"
        } else if cause.is::<NoFunction>() {
            "NoFunctionError"
        } else if cause.is::<ObjectStoreError>() {
            "ObjectStoreError"
        } else if cause.is::<SessionLost>() {
            "SessionLostError"
        } else {
            "ClusterError"
        };
        return (name, cause.to_string(), Vec::new());
    }
    if matches!(error, TaskError::Abandoned) {
        let text = String::from("the program ended before the task was done");
        return ("ClusterError", text, Vec::new());
    }
    ("ClusterError", error.to_string(), Vec::new())
}

/// Makes an exception of an error of a constructor.
pub(crate) fn cluster_error(py: Python<'_>, error: &ClusterError) -> PyErr {
    let text = error.to_string();
    match error {
        ClusterError::QueueName(_)
        | ClusterError::Priority(_)
        | ClusterError::ZeroPending
        | ClusterError::ShortLease(_)
        | ClusterError::SessionName
        | ClusterError::SessionEmbedded
        | ClusterError::Address(_) => PyValueError::new_err(text),
        ClusterError::Connect { .. } | ClusterError::Server(_) => unreachable(py, text),
        ClusterError::SessionInUse { .. } => raised(py, "SessionInUseError", text),
        ClusterError::ObjectStore(_) => raised(py, "ObjectStoreError", text),
        ClusterError::UnknownSession { .. } => raised(py, "UnknownSessionError", text),
        _ => raised(py, "ClusterError", text),
    }
}

/// Makes the error of a server that does not answer.
pub(crate) fn unreachable(py: Python<'_>, text: String) -> PyErr {
    raised(py, "ClusterConnectionError", text)
}

fn raised(py: Python<'_>, class: &str, text: String) -> PyErr {
    let class = py
        .import("concurrent_futures_cluster._errors")
        .and_then(|module| module.getattr(class));
    match class.and_then(|class| class.call1((text,))) {
        Ok(error) => PyErr::from_value(error),
        Err(error) => error,
    }
}

/// Makes an exception of the error of a submission.
pub(crate) fn submit_error(error: &SubmitError) -> PyErr {
    match error {
        SubmitError::Shutdown => {
            PyRuntimeError::new_err("cannot schedule new futures after shutdown")
        }
        error => PyRuntimeError::new_err(error.to_string()),
    }
}
