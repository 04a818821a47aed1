//! Servers and hosts for tests: real processes on loopback.

#![allow(dead_code, reason = "each test program uses a part")]

pub(crate) mod clock;
pub(crate) mod load;
pub(crate) mod proxy;

use concurrent_futures_cluster::{ClusterExecutor, ClusterExecutorBuilder};
use futures_util::TryStreamExt;
use std::env;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The time after which a test fails that waits for an event.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
/// The lease in tests of lost hosts.
pub(crate) const LEASE: Duration = Duration::from_millis(1500);

/// Returns the program of the server: named by a variable, of `PATH`, or of an environment of the project.
pub(crate) fn program() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CONCURRENT_FUTURES_NATS_SERVER") {
        return Some(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let environments = fs::read_dir(root.join(".venv"))
        .into_iter()
        .flatten()
        .flatten();
    let path = env::var_os("PATH").unwrap_or_default();
    let folders = env::split_paths(&path).chain(environments.map(|entry| entry.path().join("bin")));
    let mut programs = folders.map(|folder| folder.join("nats-server"));
    programs.find(|program| program.is_file())
}

/// Returns the program of the server, or prints why the test is skipped.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
pub(crate) fn program_or_skip() -> Option<PathBuf> {
    let program = program();
    if program.is_none() {
        eprintln!("skipped: there is no nats-server; `make cluster` installs it");
    }
    program
}

/// The tasks of a priority on the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Lane {
    pub(crate) priority: u8,
    /// The number of tasks that no host has got.
    pub(crate) untaken: u64,
    /// The number of tasks that hosts have.
    pub(crate) held: usize,
    /// The number of requests of hosts that wait.
    pub(crate) requests: usize,
}

/// A server on loopback, which can be killed and started again on the same port.
pub(crate) struct Server {
    program: PathBuf,
    port: u16,
    folder: TempDir,
    child: Option<Child>,
    /// A part of the server's configuration.
    settings: String,
    scheme: &'static str,
}

impl Server {
    pub(crate) fn start() -> Option<Self> {
        Self::start_with("nats", "")
    }

    /// Starts a server with a part of a configuration. Clients reach it by addresses of the scheme.
    pub(crate) fn start_with(scheme: &'static str, settings: &str) -> Option<Self> {
        let program = program_or_skip()?;
        let port = TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let mut server = Self {
            program,
            port,
            folder: TempDir::new().unwrap(),
            child: None,
            settings: settings.to_owned(),
            scheme,
        };
        server.run();
        Some(server)
    }

    pub(crate) fn url(&self) -> String {
        format!("{}://127.0.0.1:{}", self.scheme, self.port)
    }

    /// Starts the server, and waits until it accepts connections.
    pub(crate) fn run(&mut self) {
        let settings = self.folder.path().join("settings.conf");
        fs::write(&settings, &self.settings).unwrap();
        let mut command = Command::new(&self.program);
        command.arg("--config").arg(settings).args([
            "--addr",
            "127.0.0.1",
            "--port",
            &self.port.to_string(),
            "--jetstream",
        ]);
        if !self.settings.contains("store_dir") {
            command
                .arg("--store_dir")
                .arg(self.folder.path().join("jetstream"));
        }
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("the server accepts connections", || {
            TcpStream::connect(("127.0.0.1", self.port)).is_ok()
        });
    }

    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// Stops the server until the guard is dropped: it answers to no party, and closes no connection.
    pub(crate) fn stop(&self) -> Stopped {
        Stopped::new(self.child.as_ref().unwrap())
    }

    /// Kills the server, which finds again what is on its disk.
    pub(crate) fn crash(&mut self) {
        let mut child = self.child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Kills the server, and forgets all that it had.
    pub(crate) fn kill(&mut self) {
        self.crash();
        self.folder = TempDir::new().unwrap();
    }

    /// Talks to the server, beside the crate.
    pub(crate) fn ask<R>(
        &self,
        question: impl AsyncFnOnce(async_nats::jetstream::Context) -> Result<R, async_nats::Error>,
    ) -> Result<R, async_nats::Error> {
        ask(&self.url(), question)
    }

    /// Returns the number of messages with tasks on the server.
    pub(crate) fn messages(&self) -> Result<u64, async_nats::Error> {
        self.ask(async |context| {
            let stream = context.get_stream("cf-tasks-default").await?;
            Ok(stream.cached_info().state.messages)
        })
    }

    /// Returns the number of tasks that hosts have.
    pub(crate) fn delivered(&self) -> Result<usize, async_nats::Error> {
        self.ask(async |context| {
            let stream = context.get_stream("cf-tasks-default").await?;
            let consumers: Vec<_> = stream.consumers().try_collect().await?;
            Ok(consumers.iter().map(|one| one.num_ack_pending).sum())
        })
    }

    /// Returns the number of outcomes that wait for their clients.
    pub(crate) fn outcomes(&self) -> Result<u64, async_nats::Error> {
        self.ask(
            async |context| match context.get_stream("cf-outcomes-default").await {
                Ok(stream) => Ok(stream.cached_info().state.messages),
                Err(error) if error.to_string().contains("not found") => Ok(0),
                Err(error) => Err(error.into()),
            },
        )
    }

    /// Returns the number of parts of payloads on the server.
    pub(crate) fn parts(&self) -> Result<u64, async_nats::Error> {
        self.ask(async |context| {
            let stream = context.get_stream("cf-payloads-default").await?;
            Ok(stream.cached_info().state.messages)
        })
    }

    /// Deletes the stream of tasks.
    pub(crate) fn delete_tasks(&self) -> Result<(), async_nats::Error> {
        self.ask(async |context| {
            context.delete_stream("cf-tasks-default").await?;
            Ok(())
        })
    }

    /// Deletes the stream of tasks of kept sessions.
    pub(crate) fn delete_kept_tasks(&self) -> Result<(), async_nats::Error> {
        self.ask(async |context| {
            context.delete_stream("cf-tasks-default+kept").await?;
            Ok(())
        })
    }

    /// Returns what the server knows of the tasks of each priority.
    pub(crate) fn lanes(&self) -> Result<Vec<Lane>, async_nats::Error> {
        self.ask(async |context| {
            let stream = context.get_stream("cf-tasks-default").await?;
            let consumers: Vec<_> = stream.consumers().try_collect().await?;
            let lanes = consumers.into_iter().map(|one| Lane {
                priority: one.name.rsplit('-').next().unwrap().parse().unwrap(),
                untaken: one.num_pending,
                held: one.num_ack_pending,
                requests: one.num_waiting,
            });
            Ok(lanes.collect())
        })
    }

    /// Starts a test of this program by itself, as another client.
    pub(crate) fn program(&self, test: &str, folder: &str) -> Host {
        self.program_with(test, folder, &[])
    }

    pub(crate) fn program_with(
        &self,
        test: &str,
        folder: &str,
        variables: &[(&str, &str)],
    ) -> Host {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", test])
            .env("CLUSTER_TEST_FOLDER", folder)
            .env("CLUSTER_TEST_URL", self.url())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Host(Some(child))
    }

    pub(crate) fn executor(&self) -> ClusterExecutorBuilder {
        ClusterExecutor::builder().url(self.url()).lease(LEASE)
    }

    /// Starts a host, which is this program.
    pub(crate) fn host(&self, workers: usize) -> Host {
        self.host_with(workers, &[])
    }

    pub(crate) fn host_with(&self, workers: usize, variables: &[(&str, &str)]) -> Host {
        Host::start(&self.url(), workers, variables)
    }

    /// Starts a host, which is another program.
    pub(crate) fn host_of(
        &self,
        program: &Path,
        workers: usize,
        variables: &[(&str, &str)],
    ) -> Host {
        Host::start_program(program, &self.url(), workers, variables)
    }
}

impl Host {
    /// Starts a host of a server, which is this program.
    pub(crate) fn start(url: &str, workers: usize, variables: &[(&str, &str)]) -> Self {
        Self::start_program(&env::current_exe().unwrap(), url, workers, variables)
    }

    fn start_program(
        program: &Path,
        url: &str,
        workers: usize,
        variables: &[(&str, &str)],
    ) -> Self {
        let child = Command::new(program)
            .env("CONCURRENT_FUTURES_WORKER", url)
            .env("CONCURRENT_FUTURES_WORKERS", workers.to_string())
            .env("CONCURRENT_FUTURES_LEASE_MS", LEASE.as_millis().to_string())
            .envs(variables.iter().copied())
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self(Some(child))
    }

    /// Stops the host until the guard is dropped.
    pub(crate) fn stop(&self) -> Stopped {
        Stopped::new(self.0.as_ref().unwrap())
    }
}

/// A process that is stopped, until this is dropped.
pub(crate) struct Stopped(rustix::process::Pid);

impl Stopped {
    /// Stops a process, and waits until all of it is stopped: the signal has its effect later.
    pub(crate) fn new(child: &Child) -> Self {
        let pid = rustix::process::Pid::from_child(child);
        rustix::process::kill_process(pid, rustix::process::Signal::STOP).unwrap();
        let stopped = Self(pid);
        let tasks = format!("/proc/{}/task", child.id());
        wait_until("the process is stopped", || {
            let mut threads = fs::read_dir(&tasks).unwrap().flatten();
            threads.all(|thread| {
                // A thread that has ended meanwhile is as good as stopped.
                fs::read_to_string(thread.path().join("stat")).map_or(true, |stat| {
                    // The state is behind the name, which is in parentheses.
                    stat.rsplit(") ").next().unwrap().starts_with('T')
                })
            })
        });
        stopped
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        // A process that was killed meanwhile is gone.
        let _ = rustix::process::kill_process(self.0, rustix::process::Signal::CONT);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// A host process.
pub(crate) struct Host(Option<Child>);

impl Host {
    pub(crate) fn pid(&self) -> u32 {
        self.0.as_ref().unwrap().id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_child(self.0.as_ref().unwrap());
        rustix::process::kill_process(pid, signal).unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        let child = self.0.as_mut().unwrap();
        child.try_wait().unwrap().is_some()
    }

    pub(crate) fn kill(&mut self) {
        let mut child = self.0.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// Waits for the end of the host.
    pub(crate) fn wait(mut self) -> ExitStatus {
        let mut child = self.0.take().unwrap();
        let mut status = None;
        wait_until("the host ends", || {
            status = child.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Talks to the server at some addresses, beside the crate. A server without an answer is an error.
pub(crate) fn ask<R>(
    urls: &str,
    question: impl AsyncFnOnce(async_nats::jetstream::Context) -> Result<R, async_nats::Error>,
) -> Result<R, async_nats::Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let asking = async {
            let urls: Vec<&str> = urls.split(',').collect();
            let client = async_nats::connect(&urls[..]).await?;
            question(async_nats::jetstream::new(client)).await
        };
        tokio::time::timeout(Duration::from_secs(10), asking).await?
    })
}

/// Waits until nothing is left of tasks on the server: no task, no outcome, no payload.
pub(crate) fn wait_until_empty(server: &Server) {
    // The stream of payloads may never have been made.
    wait_until_left(server, || server.parts().unwrap_or(0));
}

/// Waits until no task and no outcome is left on the server. A part of a payload may be: one that was on its way when a
/// connection broke can come after the payload was removed. It goes by its age.
pub(crate) fn wait_until_no_task_is_left(server: &Server) {
    wait_until_left(server, || 0);
}

fn wait_until_left(server: &Server, parts: impl Fn() -> u64) {
    let counts = || {
        let count = |found: Result<u64, async_nats::Error>| found.unwrap_or(u64::MAX);
        // The stream of outcomes may never have been made.
        (count(server.messages()), count(server.outcomes()), parts())
    };
    let deadline = Instant::now() + PATIENCE;
    while counts() != (0, 0, 0) {
        assert!(
            Instant::now() < deadline,
            "tasks, outcomes and parts are left: {:?}",
            counts()
        );
        thread::sleep(Duration::from_millis(20));
    }
}

/// Returns the child of this process that listens at a port of loopback.
#[cfg(target_os = "linux")]
pub(crate) fn listener(port: u16) -> Option<rustix::process::Pid> {
    // The address of 127.0.0.1, the port, and the state of a socket that listens. The tenth field is the inode.
    let local = format!("0100007F:{port:04X}");
    let sockets = fs::read_to_string("/proc/net/tcp").unwrap();
    let inode = sockets.lines().find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        (fields[1] == local && fields[3] == "0A").then(|| fields[9].to_owned())
    })?;
    let socket = format!("socket:[{inode}]");
    let threads = fs::read_dir("/proc/self/task").unwrap().flatten();
    let children =
        threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok());
    let children: Vec<i32> = children
        .flat_map(|text| {
            text.split_whitespace()
                .map(|pid| pid.parse().unwrap())
                .collect::<Vec<_>>()
        })
        .collect();
    let listens = |pid: &i32| {
        let open = fs::read_dir(format!("/proc/{pid}/fd"))
            .into_iter()
            .flatten()
            .flatten();
        open.filter_map(|one| fs::read_link(one.path()).ok())
            .any(|target| target.as_os_str() == socket.as_str())
    };
    let found = children.into_iter().find(listens)?;
    rustix::process::Pid::from_raw(found)
}

/// Waits until a process is gone.
pub(crate) fn wait_until_gone(pid: u32) {
    wait_until("the process is gone", || {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"));
        // One that has ended belongs to its parent, which may be slow.
        stat.map_or(true, |stat| {
            stat.rsplit(") ").next().unwrap().starts_with('Z')
        })
    });
}

/// Waits for an event.
pub(crate) fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !is_so() {
        assert!(Instant::now() < deadline, "not in time: {what}");
        thread::sleep(Duration::from_millis(2));
    }
}

/// A folder in which tasks leave notes, and wait for those of the test.
pub(crate) struct Notes(TempDir);

impl Notes {
    pub(crate) fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    pub(crate) fn path(&self) -> String {
        self.0.path().to_str().unwrap().to_owned()
    }

    pub(crate) fn write(&self, name: &str) {
        fs::write(self.0.path().join(name), "").unwrap();
    }

    pub(crate) fn wait_for(&self, name: &str) {
        wait_until(name, || self.0.path().join(name).exists());
    }

    pub(crate) fn wait_for_prefix(&self, prefix: &str) {
        wait_until(prefix, || !self.named(prefix).is_empty());
    }

    /// Returns the names of notes that begin with `prefix`.
    pub(crate) fn named(&self, prefix: &str) -> Vec<String> {
        let names = fs::read_dir(self.0.path()).unwrap().flatten();
        let names = names.map(|entry| entry.file_name().into_string().unwrap());
        names.filter(|name| name.starts_with(prefix)).collect()
    }
}

/// A task that leaves a note, named by its worker's process, and waits for the note `go`. Returns the process.
pub(crate) fn note_and_wait((folder, name): (String, String)) -> u32 {
    let pid = std::process::id();
    let folder = Path::new(&folder);
    fs::write(folder.join(format!("{name}.{pid}")), "").unwrap();
    while !folder.join("go").exists() {
        thread::sleep(Duration::from_millis(2));
    }
    pid
}

/// A task that leaves a note for each time that it runs.
pub(crate) fn note((folder, name): (String, String)) -> u32 {
    let pid = std::process::id();
    let nanos = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_nanos();
    fs::write(Path::new(&folder).join(format!("{name}.{pid}.{nanos}")), "").unwrap();
    pid
}
