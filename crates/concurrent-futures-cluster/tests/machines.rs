//! The guide's example on machines of its own: network namespaces with a bridge between them. Needs the right to make
//! them, and the program `ip`: `make cluster-faults`.

#![cfg(target_os = "linux")]

mod common;

use common::{PATIENCE, program_or_skip, wait_until};
use std::error::Error;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::Instant;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

/// The first machine has the server, the last one the client.
const MACHINES: usize = 5;

/// Machines on a network.
struct Network {
    prefix: String,
    children: Vec<Child>,
}

fn ip(arguments: &str) -> bool {
    let words = arguments.split_whitespace();
    let done = Command::new("ip")
        .args(words)
        .stderr(Stdio::null())
        .status();
    done.is_ok_and(|status| status.success())
}

impl Network {
    /// Makes the machines; none without the right to.
    fn new(name: &str) -> Option<Self> {
        let network = Self {
            prefix: format!("cf{name}{}", std::process::id() % 10_000),
            children: Vec::new(),
        };
        let prefix = &network.prefix;
        let mut is_made = ip(&format!("netns add {prefix}x"))
            && ip(&format!("-n {prefix}x link add bridge type bridge"))
            && ip(&format!("-n {prefix}x link set bridge up"));
        for n in 1..=MACHINES {
            is_made = is_made
                && ip(&format!("netns add {prefix}m{n}"))
                && ip(&format!(
                    "-n {prefix}m{n} link add eth0 type veth peer name port{n} netns {prefix}x"
                ))
                && ip(&format!("-n {prefix}x link set port{n} master bridge up"))
                && ip(&format!("-n {prefix}m{n} addr add 10.0.0.{n}/24 dev eth0"))
                && ip(&format!("-n {prefix}m{n} link set eth0 up"))
                && ip(&format!("-n {prefix}m{n} link set lo up"));
        }
        is_made.then_some(network)
    }

    /// Prepares a program on a machine, with a name of its own.
    fn command(&self, machine: usize, program: &Path) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &format!("{}m{machine}", self.prefix)])
            .args(["unshare", "--uts", "sh", "-c"])
            .arg(format!("hostname machine-{machine} && exec \"$0\" \"$@\""))
            .arg(program)
            .env_remove("CONCURRENT_FUTURES_WORKER")
            .env("CONCURRENT_FUTURES_KEY", "secret")
            .stdin(Stdio::null());
        command
    }

    fn start(&mut self, mut command: Command) {
        let child = command.stderr(Stdio::null()).spawn().unwrap();
        self.children.push(child);
    }

    /// Takes a machine off the network, or connects it again.
    fn connect(&self, machine: usize, is_up: bool) {
        let state = if is_up { "up" } else { "down" };
        assert!(ip(&format!(
            "-n {}x link set port{machine} {state}",
            self.prefix
        )));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        for child in &mut self.children {
            let _ = child.kill();
            let _ = child.wait();
        }
        for n in 1..=MACHINES {
            ip(&format!("netns del {}m{n}", self.prefix));
        }
        ip(&format!("netns del {}x", self.prefix));
    }
}

/// Returns the example of the guide. Cargo builds it together with the tests.
fn squares() -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let target = tests.parent().and_then(Path::parent).unwrap();
    target.join("examples/squares")
}

#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn network(name: &str) -> Option<(Network, PathBuf)> {
    let server = program_or_skip()?;
    let made = Network::new(name);
    if made.is_none() {
        eprintln!("skipped: this process may not make network namespaces");
    }
    made.map(|network| (network, server))
}

/// Starts the server on the first machine, and hosts on the three next ones.
fn start(network: &mut Network, server: &Path, folder: &Path) {
    let mut command = network.command(1, server);
    command
        .args(["--jetstream", "--port", "4222", "--store_dir"])
        .arg(folder);
    network.start(command);
    for machine in 2..MACHINES {
        let mut command = network.command(machine, &squares());
        command
            .env("CONCURRENT_FUTURES_WORKER", "nats://10.0.0.1:4222")
            .env("CONCURRENT_FUTURES_WORKERS", "2");
        network.start(command);
    }
}

fn run_client(network: &Network) -> Output {
    let mut command = network.command(MACHINES, &squares());
    command.env("CONCURRENT_FUTURES_URL", "nats://10.0.0.1:4222");
    command.output().unwrap()
}

/// Runs the client until it finds all hosts. Returns its output.
fn run_until_all_are_there(network: &Network) -> String {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let output = run_client(network);
        let text = String::from_utf8(output.stdout).unwrap();
        let is_there =
            |machine| text.contains(&format!("a host on machine-{machine} with 2 workers"));
        if output.status.success() && (2..MACHINES).all(is_there) {
            return text;
        }
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(Instant::now() < deadline, "{text}{errors}");
    }
}

fn assert_is_right(text: &str) {
    assert!(
        text.contains("the sum of 1,000 squares: 333833500"),
        "{text}"
    );
    for square in [1, 4, 9, 16] {
        assert!(text.contains(&format!("a square: {square}\n")), "{text}");
    }
}

#[test]
#[ignore = "needs the right to make network namespaces: make cluster-faults"]
fn the_example_of_the_guide_runs_on_five_machines() -> Test {
    let Some((mut network, server)) = network("g") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    start(&mut network, &server, folder.path());
    assert_is_right(&run_until_all_are_there(&network));
    Ok(())
}

#[test]
#[ignore = "needs the right to make network namespaces: make cluster-faults"]
fn machines_that_leave_the_network_cost_time_only() -> Test {
    let Some((mut network, server)) = network("p") else {
        return Ok(());
    };
    let folder = tempfile::tempdir()?;
    start(&mut network, &server, folder.path());
    run_until_all_are_there(&network);
    // The registry still has the host, and the server believes in its connection.
    network.connect(2, false);
    let output = run_client(&network);
    assert!(output.status.success());
    assert_is_right(&String::from_utf8(output.stdout)?);
    // The client itself.
    network.connect(2, true);
    let mut command = network.command(MACHINES, &squares());
    command
        .env("CONCURRENT_FUTURES_URL", "nats://10.0.0.1:4222")
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    network.connect(MACHINES, false);
    let mut client = command.spawn()?;
    std::thread::sleep(std::time::Duration::from_secs(2));
    assert!(client.try_wait()?.is_none(), "it needs the network");
    network.connect(MACHINES, true);
    let mut status = None;
    wait_until("the client is done", || {
        status = client.try_wait().unwrap();
        status.is_some()
    });
    let output = client.wait_with_output()?;
    assert!(output.status.success(), "{status:?}");
    assert_is_right(&String::from_utf8(output.stdout)?);
    Ok(())
}
