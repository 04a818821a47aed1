//! The settings that clients and hosts have in common.

use concurrent_futures_cluster::ClusterBuilder;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use std::path::PathBuf;
use std::time::Duration;

/// The settings, as the Python code passes them: by keywords of these names.
#[derive(FromPyObject)]
#[pyo3(from_item_all)]
pub(crate) struct Settings {
    url: Option<String>,
    queue: Option<String>,
    key: Option<Vec<u8>>,
    insecure: bool,
    token: Option<String>,
    credentials: Option<PathBuf>,
    nkey: Option<String>,
    tls: Option<PathBuf>,
    tag: Option<String>,
    lease: Option<f64>,
    object_store: Option<String>,
    environment: String,
}

impl Settings {
    /// Gives the settings to a builder.
    pub(crate) fn apply<Role>(
        self,
        mut builder: ClusterBuilder<Role>,
    ) -> PyResult<ClusterBuilder<Role>> {
        builder = builder.environment(self.environment);
        if let Some(url) = self.url {
            builder = builder.url(url);
        }
        if let Some(queue) = self.queue {
            builder = builder.queue(queue);
        }
        if let Some(key) = self.key {
            builder = builder.key(key);
        }
        if self.insecure {
            builder = builder.insecure();
        }
        if let Some(token) = self.token {
            builder = builder.token(token);
        }
        if let Some(credentials) = self.credentials {
            builder = builder.credentials(credentials);
        }
        if let Some(nkey) = self.nkey {
            builder = builder.nkey(nkey);
        }
        if let Some(tls) = self.tls {
            builder = builder.root_certificates(tls);
        }
        if let Some(tag) = self.tag {
            builder = builder.tag(tag);
        }
        if let Some(place) = self.object_store {
            builder = builder.object_store(place);
        }
        if let Some(lease) = self.lease {
            builder = builder.lease(seconds("lease", lease)?);
        }
        Ok(builder)
    }
}

/// Makes a time of seconds.
pub(crate) fn seconds(name: &str, seconds: f64) -> PyResult<Duration> {
    let time = Duration::try_from_secs_f64(seconds);
    time.map_err(|_| PyValueError::new_err(format!("{name} must not be negative, or too long")))
}
