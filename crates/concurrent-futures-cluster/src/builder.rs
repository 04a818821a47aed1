//! The builder of executors and of hosts: the settings that both have in common.

#![forbid(unsafe_code)]

use crate::access::Door;
use crate::environment;
use crate::register::BY_NAME;
use crate::wire::Seal;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Makes a [`ClusterExecutor`](crate::ClusterExecutor) or a [`ClusterHost`](crate::ClusterHost).
///
/// The settings here are those that clients and hosts have in common. See
/// [`ClusterExecutor::builder`](crate::ClusterExecutor::builder) and [`ClusterHost::builder`](crate::ClusterHost::builder).
///
/// # Examples
/// ```
/// use concurrent_futures_cluster::{ClusterExecutor, ClusterHost};
///
/// let client = ClusterExecutor::builder().queue("images").key("secret").priority(2);
/// let host = ClusterHost::builder().queue("images").key("secret").workers(4);
/// println!("{client:?} and {host:?}");
/// ```
#[derive(Clone, Default)]
#[must_use = "a builder does nothing until `build` or `start` is called"]
pub struct ClusterBuilder<Role> {
    pub(crate) door: Door,
    pub(crate) environment: Option<String>,
    pub(crate) workers: Option<usize>,
    pub(crate) is_by_name: bool,
    /// The settings that only executors, or only hosts have.
    pub(crate) role: Role,
}

impl<Role> ClusterBuilder<Role> {
    /// Sets the address of the server, such as `nats://127.0.0.1:4222`, or `tls://ann:secret@example.org`. An executor also takes `embedded`: a server and a
    /// host that belong to it. Its default is `CONCURRENT_FUTURES_URL`, or else `embedded`.
    ///
    /// A server of several nodes has several addresses, as in `nats://one:4222,nats://two:4222`. With a login, it is that of the
    /// first address that has one.
    pub fn url(mut self, url: impl Into<String>) -> Self {
        self.door.url = Some(url.into());
        self
    }

    /// Sets the queue. The default is `CONCURRENT_FUTURES_QUEUE`, or else `default`.
    pub fn queue(mut self, name: impl Into<String>) -> Self {
        self.door.queue = Some(name.into());
        self
    }

    /// Sets the key of the queue, by which clients and hosts authenticate tasks and results. The default is
    /// `CONCURRENT_FUTURES_KEY`.
    pub fn key(mut self, key: impl Into<Vec<u8>>) -> Self {
        self.door.key = Some(key.into());
        self
    }

    /// Accepts a server on another machine without a key. Then any party that can write to the server can run code on
    /// hosts, and forge results.
    pub fn insecure(mut self) -> Self {
        self.door.insecure = true;
        self
    }

    /// Sets the token with which to log in to the server. Without any way to log in, the variables
    /// `CONCURRENT_FUTURES_TOKEN`, `CONCURRENT_FUTURES_CREDENTIALS` (a file) and `CONCURRENT_FUTURES_NKEY` count.
    pub fn token(mut self, token: impl Into<String>) -> Self {
        self.door.token = Some(token.into());
        self
    }

    /// Sets the file with the credentials with which to log in to the server.
    pub fn credentials(mut self, path: impl Into<PathBuf>) -> Self {
        self.door.credentials = Some(path.into());
        self
    }

    /// Sets the seed of the `NKey` with which to log in to the server.
    pub fn nkey(mut self, seed: impl Into<String>) -> Self {
        self.door.nkey = Some(seed.into());
        self
    }

    /// Sets the file with the certificates that the server's certificate is checked by, besides those of the system. The
    /// default is `CONCURRENT_FUTURES_ROOT_CERTIFICATES`.
    pub fn root_certificates(mut self, path: impl Into<PathBuf>) -> Self {
        self.door.root_certificates = Some(path.into());
        self
    }

    /// Sets the place of payloads of more than 64 MiB, as an address: a shared folder such as `file:///shared`, or
    /// `s3://bucket/folder`. The default is `CONCURRENT_FUTURES_OBJECT_STORE`, or else the server's memory
    /// takes all payloads.
    ///
    /// Clients and hosts need the same one. It needs the feature `object-store` of this crate, or `object-store-s3`, which
    /// takes its login from the variables `AWS_…`. A folder must be there. A payload that cannot be stored or fetched fails
    /// its task with [`ObjectStoreError`](crate::ObjectStoreError). Objects of a client that was killed stay: remove them by
    /// age. So do those of [sessions](crate::ClusterExecutorBuilder::session) that are not discarded.
    ///
    /// # Examples
    /// ```
    /// use concurrent_futures_cluster::ClusterExecutor;
    ///
    /// let builder = ClusterExecutor::builder().object_store("file:///shared").object_store_above(16 << 20);
    /// println!("{builder:?}");
    /// ```
    pub fn object_store(mut self, url: impl Into<String>) -> Self {
        self.door.object_store = Some(url.into());
        self
    }

    /// Sets the number of bytes above which payloads go to the [object store](Self::object_store), if it is more than 256
    /// KiB. The default is `CONCURRENT_FUTURES_OBJECT_STORE_ABOVE`, or else 64 MiB. Clients and hosts may have different ones.
    pub fn object_store_above(mut self, bytes: u64) -> Self {
        self.door.object_store_above = Some(bytes);
        self
    }

    /// Sets a tag that clients and hosts must have in common, besides the build.
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.door.tag = tag.into();
        self
    }

    /// Sets the time for which a task is a host's own after the host's last sign. The default is 15 seconds. When it
    /// passes, another host gets the task. All clients and hosts of a queue must have the same, of a second or more.
    pub fn lease(mut self, lease: Duration) -> Self {
        self.door.lease = lease;
        self
    }

    /// Sets how many tasks the host runs at once; for an executor, the embedded host. The default is the number of CPUs
    /// that the process may use.
    pub fn workers(mut self, workers: usize) -> Self {
        self.workers = Some(workers);
        self
    }

    /// Lets tasks name their functions, so that clients and hosts may be different programs; see
    /// [`register!`](crate::register) and [`submit_named`](crate::ClusterExecutor::submit_named). Tasks of other calls
    /// fail with [`NoFunction`](crate::NoFunction).
    pub fn by_name(mut self) -> Self {
        self.is_by_name = true;
        self.environment = Some(String::from(BY_NAME));
        self
    }

    /// Sets the environment of the tasks. The default is this build. Another one is for tasks of other frontends, which
    /// need other things of a host. The name is a part of a subject, together with a hash of the tag and of the key.
    pub fn environment(mut self, name: impl Into<String>) -> Self {
        self.environment = Some(name.into());
        self
    }

    /// Returns the environment of the tasks.
    pub(crate) fn environment_of(&self, seal: &Seal) -> io::Result<String> {
        match &self.environment {
            Some(name) => Ok(environment::of_a_frontend(name, &self.door.tag, seal)),
            None => environment::of_this_program(&self.door.tag, seal),
        }
    }
}

impl<Role> fmt::Debug for ClusterBuilder<Role> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClusterBuilder").finish_non_exhaustive()
    }
}
