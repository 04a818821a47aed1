//! The observer: looks at the queues and the hosts of a server.

use crate::errors::{cluster_error, unreachable};
use crate::settings::Settings;
use concurrent_futures_cluster::ClusterObserver;
use pyo3::prelude::*;

/// A connection to a server, which is looked at.
#[pyclass(module = "concurrent_futures_cluster._native", frozen)]
pub(crate) struct Observer(ClusterObserver);

#[pymethods]
impl Observer {
    /// Connects to a server.
    #[new]
    fn new(py: Python<'_>, settings: Settings) -> PyResult<Self> {
        let builder = settings.apply(ClusterObserver::builder())?;
        let observer = py.detach(|| builder.build());
        let observer = observer.map_err(|error| cluster_error(py, &error))?;
        Ok(Self(observer))
    }

    /// Returns the state of the server, as a table and as JSON.
    fn look(&self, py: Python<'_>) -> PyResult<(String, String)> {
        let view = py.detach(|| self.0.look());
        let view = view.map_err(|error| unreachable(py, error.to_string()))?;
        Ok((view.to_string(), view.to_json()))
    }
}
