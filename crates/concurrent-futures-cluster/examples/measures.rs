//! Measures the resources of clusters: 500 idle hosts, 100,000 pending tasks, and the time until the task of a killed host
//! runs again. Prints a line of JSON.
//!
//! `cargo run --release -p concurrent-futures-cluster --example measures`, on Linux, with `nats-server` in `PATH` or in
//! `CONCURRENT_FUTURES_NATS_SERVER`. `python/benches/cluster.py` writes the figures into BENCHMARKS.md.

#![allow(clippy::print_stdout, reason = "prints its results")]

use bytes::Bytes;
use concurrent_futures_cluster::{
    Call, CallOptions, ClusterExecutor, ClusterHost, Runner, Running,
};
use std::env;
use std::error::Error;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

type Outcome<T> = Result<T, Box<dyn Error + Send + Sync>>;

const HOSTS: usize = 500;
const PENDING: usize = 100_000;
const LOSSES: usize = 5;
/// The lease of the hosts that are killed.
const LEASE: Duration = Duration::from_secs(3);
/// The kernel counts the time of processes in ticks of ten milliseconds.
const TICKS: f64 = 100.0;

fn main() -> Outcome<()> {
    // Hosts and worker processes begin here, and end here.
    concurrent_futures_cluster::init();
    // First, as the memory that hosts have left would be used again.
    let bytes = pending_tasks()?;
    let (idle, busy) = idle_hosts()?;
    let losses = lost_hosts()?;
    println!(
        "{}",
        serde_json::json!({
            "hosts": HOSTS,
            "idle_share": idle,
            "host_share": busy,
            "pending": PENDING,
            "pending_bytes": bytes,
            "lease": LEASE.as_secs_f64(),
            "lost_seconds": losses,
        })
    );
    Ok(())
}

/// A server of its own, on loopback.
struct Server {
    child: Child,
    port: u16,
    _folder: TempDir,
}

impl Server {
    fn start() -> Outcome<Self> {
        let given = env::var_os("CONCURRENT_FUTURES_NATS_SERVER");
        let program = given.unwrap_or_else(|| "nats-server".into());
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let folder = TempDir::new()?;
        let child = Command::new(program)
            .args(["--addr", "127.0.0.1", "--port", &port.to_string()])
            .args(["--jetstream", "--store_dir"])
            .arg(folder.path())
            .stdin(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let server = Self {
            child,
            port,
            _folder: folder,
        };
        while TcpStream::connect(("127.0.0.1", port)).is_err() {
            thread::sleep(Duration::from_millis(5));
        }
        Ok(server)
    }

    fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has ended if that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A runner without workers that could run anything: no task comes.
struct Idle;

impl Runner for Idle {
    fn workers(&self) -> usize {
        4
    }

    fn knows(&self, _: &Call) -> bool {
        false
    }

    fn run(&self, _: &Call, _: Bytes, _: CallOptions) -> Box<dyn Running> {
        unreachable!("the runner knows no call")
    }

    fn close(&self) {}
}

/// Returns the seconds of processors that a process has had.
fn processor_seconds(pid: u32) -> Outcome<f64> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let (_, rest) = stat.rsplit_once(") ").ok_or("no name")?;
    let words: Vec<&str> = rest.split(' ').collect();
    let ticks = words[11].parse::<f64>()? + words[12].parse::<f64>()?;
    Ok(ticks / TICKS)
}

/// Returns the shares of one processor that the server, and all hosts together, use while no task comes.
fn idle_hosts() -> Outcome<(f64, f64)> {
    let server = Server::start()?;
    let mut hosts = Vec::new();
    for _ in 0..HOSTS {
        let builder = ClusterHost::builder()
            .url(server.url())
            .environment("fleet")
            .runner(Arc::new(Idle));
        hosts.push(builder.start()?);
    }
    let seconds = || -> Outcome<(f64, f64)> {
        Ok((
            processor_seconds(server.child.id())?,
            processor_seconds(std::process::id())?,
        ))
    };
    thread::sleep(Duration::from_secs(5));
    // Each host writes itself into the registry three times in this time. A quarter of the requests for tasks end.
    let window = Duration::from_secs(30);
    let (began, before) = (Instant::now(), seconds()?);
    thread::sleep(window);
    let (took, after) = (began.elapsed().as_secs_f64(), seconds()?);
    // The hosts end together.
    let ends: Vec<_> = hosts
        .into_iter()
        .map(|host| thread::spawn(|| host.stop()))
        .collect();
    for end in ends {
        end.join().map_err(|_| "a host panicked")?;
    }
    Ok(((after.0 - before.0) / took, (after.1 - before.1) / took))
}

/// Returns the bytes of memory that this process has.
fn memory() -> Outcome<usize> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kilobytes.ok_or("no figure")?.parse::<usize>()? * 1024)
}

/// Returns the bytes of a pending task, its argument of eight bytes and its future included.
fn pending_tasks() -> Outcome<f64> {
    let server = Server::start()?;
    let cluster = ClusterExecutor::builder()
        .url(server.url())
        .wait_for_workers(Duration::from_secs(3600))
        .build()?;
    let submit = |count: usize| -> Outcome<Vec<_>> {
        let tasks = (0..count as u64).map(|n| cluster.submit(u64::leading_zeros, u64::MAX - n));
        Ok(tasks.collect::<Result<Vec<_>, _>>()?)
    };
    // As many as the server has room for, and all that is made once.
    let first = submit(2_000)?;
    thread::sleep(Duration::from_secs(2));
    let before = memory()?;
    let tasks = submit(PENDING)?;
    thread::sleep(Duration::from_secs(1));
    let after = memory()?;
    drop((first, tasks));
    cluster.abandon();
    #[allow(clippy::cast_precision_loss, reason = "far below the limit")]
    let each = after.saturating_sub(before) as f64 / PENDING as f64;
    Ok(each)
}

/// A task that leaves a note, and waits for another one.
fn note_and_wait((folder, name): (String, String)) {
    let folder = Path::new(&folder);
    let note = folder.join(format!("{name}.{}", std::process::id()));
    // Without the note, the measurement does not end.
    let _ = fs::write(note, "");
    while !folder.join("go").exists() {
        thread::sleep(Duration::from_millis(1));
    }
}

fn host(url: &str) -> Outcome<Child> {
    Ok(Command::new(env::current_exe()?)
        .env("CONCURRENT_FUTURES_WORKER", url)
        .env("CONCURRENT_FUTURES_WORKERS", "1")
        .env("CONCURRENT_FUTURES_LEASE_MS", LEASE.as_millis().to_string())
        .stdin(Stdio::null())
        .spawn()?)
}

/// Returns the seconds from the death of a host until its task runs elsewhere.
fn lost_hosts() -> Outcome<Vec<f64>> {
    let server = Server::start()?;
    let folder = TempDir::new()?;
    let name = |text: &Path| text.to_str().map(ToOwned::to_owned).ok_or("no text");
    let cluster = ClusterExecutor::builder()
        .url(server.url())
        .lease(LEASE)
        .build()?;
    let mut losses = Vec::new();
    for round in 0..LOSSES {
        let notes = folder.path().join(round.to_string());
        fs::create_dir(&notes)?;
        let wait_for = |count: usize| -> Outcome<()> {
            while fs::read_dir(&notes)?.count() < count {
                thread::sleep(Duration::from_millis(1));
            }
            Ok(())
        };
        let mut first = host(&server.url())?;
        let task = cluster.submit(note_and_wait, (name(&notes)?, String::from("run")))?;
        wait_for(1)?;
        while !task.is_running() {
            thread::sleep(Duration::from_millis(1));
        }
        let mut second = host(&server.url())?;
        // Its entry, beside that of the first one, and those of hosts that were killed before.
        let pid = second.id();
        while !cluster.hosts()?.iter().any(|host| host.pid() == pid) {
            thread::sleep(Duration::from_millis(10));
        }
        let killed = Instant::now();
        first.kill()?;
        first.wait()?;
        wait_for(2)?;
        losses.push(killed.elapsed().as_secs_f64());
        fs::write(notes.join("go"), "")?;
        task.result()?;
        second.kill()?;
        second.wait()?;
    }
    Ok(losses)
}
