//! A server of three nodes, one of which is killed, stopped or cut off. The tests take some minutes: `make cluster-faults`
//! runs them.

#![cfg(unix)]

mod common;

use common::load::Load;
use common::{Host, LEASE, PATIENCE, Stopped, program_or_skip, wait_until};
use concurrent_futures::{Future, Shutdown};
use concurrent_futures_cluster::ClusterExecutor;
use futures_util::TryStreamExt;
use std::error::Error;
use std::fs;
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use tempfile::TempDir;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

const NODES: usize = 3;
const KEY: &str = "secret";

struct Node {
    port: u16,
    route: u16,
    child: Option<Child>,
}

/// A server of three nodes.
struct Servers {
    program: PathBuf,
    folder: TempDir,
    nodes: Vec<Node>,
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().port()
}

impl Servers {
    fn start() -> Option<Self> {
        let program = program_or_skip()?;
        let mut servers = Self {
            program,
            folder: TempDir::new().unwrap(),
            nodes: (0..NODES)
                .map(|_| Node {
                    port: free_port(),
                    route: free_port(),
                    child: None,
                })
                .collect(),
        };
        for node in 0..NODES {
            servers.run(node);
        }
        servers.wait_for_leader();
        Some(servers)
    }

    fn run(&mut self, node: usize) {
        let folder = self.folder.path().join(format!("node-{node}"));
        fs::create_dir_all(&folder).unwrap();
        let routes: Vec<String> = self
            .nodes
            .iter()
            .map(|node| format!("nats://127.0.0.1:{}", node.route))
            .collect();
        let Node { port, route, .. } = self.nodes[node];
        let settings = folder.join("settings.conf");
        let text = format!(
            "server_name: node-{node}\nlisten: \"127.0.0.1:{port}\"\njetstream {{ store_dir: \"{}\" }}\n\
             cluster {{ name: three, listen: \"127.0.0.1:{route}\", routes: [{}] }}\n",
            folder.display(),
            routes.join(", "),
        );
        fs::write(&settings, text).unwrap();
        let child = Command::new(&self.program)
            .arg("--config")
            .arg(settings)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        self.nodes[node].child = Some(child);
        wait_until("the node accepts connections", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
    }

    fn kill(&mut self, node: usize) {
        let mut child = self.nodes[node].child.take().unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn stop(&self, node: usize) -> Stopped {
        Stopped::new(self.nodes[node].child.as_ref().unwrap())
    }

    /// Returns the addresses of all nodes, beginning with one.
    fn url(&self, first: usize) -> String {
        let nodes = (0..NODES).map(|n| &self.nodes[(first + n) % NODES]);
        let urls: Vec<String> = nodes
            .map(|node| format!("nats://127.0.0.1:{}", node.port))
            .collect();
        urls.join(",")
    }

    fn ask<R>(
        &self,
        question: impl AsyncFnOnce(async_nats::jetstream::Context) -> Result<R, async_nats::Error>,
    ) -> Result<R, async_nats::Error> {
        common::ask(&self.url(0), question)
    }

    fn wait_for_leader(&self) {
        wait_until("the nodes have a leader", || {
            self.ask(async |context| {
                let account = context.query_account().await?;
                Ok(account)
            })
            .is_ok()
        });
    }

    /// Returns the node that leads the stream of tasks.
    fn leader(&self) -> usize {
        self.leader_of("cf-tasks-default")
    }

    fn leader_of(&self, stream: &str) -> usize {
        let mut leader = None;
        wait_until("the stream has a leader", || {
            leader = self
                .ask(async |context| {
                    let stream = context.get_stream(stream).await?;
                    let cluster = stream.cached_info().cluster.clone();
                    Ok(cluster.and_then(|cluster| cluster.leader))
                })
                .ok()
                .flatten()
                .and_then(|name| name.strip_prefix("node-")?.parse().ok());
            leader.is_some()
        });
        leader.unwrap()
    }

    fn wait_until_empty(&self) {
        let mut left = Vec::new();
        let deadline = Instant::now() + PATIENCE;
        loop {
            let counted = self.ask(async |context| {
                let streams: Vec<_> = context.streams().try_collect().await?;
                let streams = streams
                    .iter()
                    .filter(|one| one.config.name.starts_with("cf-"));
                let counts = streams.map(|one| (one.config.name.clone(), one.state.messages));
                Ok(counts.collect::<Vec<_>>())
            });
            if let Ok(counts) = counted {
                left = counts;
                if !left.is_empty() && left.iter().all(|(_, count)| *count == 0) {
                    return;
                }
            }
            assert!(Instant::now() < deadline, "{left:?}");
            thread::sleep(Duration::from_millis(100));
        }
    }
}

impl Drop for Servers {
    fn drop(&mut self) {
        for node in &mut self.nodes {
            if let Some(mut child) = node.child.take() {
                let _ = child.kill();
                let _ = child.wait();
            }
        }
    }
}

/// Runs tasks, half of them before and half of them after something happens to the node that has the stream.
fn around(what: impl FnOnce(&mut Servers, usize)) -> Test {
    let Some(mut servers) = Servers::start() else {
        return Ok(());
    };
    let key = [("CONCURRENT_FUTURES_KEY", KEY)];
    let _hosts: Vec<Host> = (0..NODES)
        .map(|node| Host::start(&servers.url(node), 1, &key))
        .collect();
    let cluster = ClusterExecutor::builder()
        .url(servers.url(0))
        .key(KEY)
        .lease(LEASE)
        .build()?;
    let mut load = Load::new();
    for n in 0..200 {
        load.add(&cluster, 5, if n % 50 == 7 { 300_000 } else { 10 })?;
    }
    wait_until("some are done", || load.done() >= 20);
    let leader = servers.leader();
    what(&mut servers, leader);
    for n in 0..200 {
        load.add(&cluster, 5, if n % 50 == 7 { 300_000 } else { 10 })?;
    }
    load.check()?;
    drop(cluster);
    servers.wait_until_empty();
    Ok(())
}

#[test]
#[ignore = "takes some time: make cluster-faults"]
fn a_leader_that_is_killed_and_comes_back_loses_nothing() -> Test {
    around(|servers, leader| {
        servers.kill(leader);
        thread::sleep(2 * LEASE);
        servers.run(leader);
    })
}

#[test]
#[ignore = "takes some time: make cluster-faults"]
fn a_leader_that_is_stopped_loses_nothing() -> Test {
    around(|servers, leader| {
        let _stopped = servers.stop(leader);
        thread::sleep(4 * LEASE);
    })
}

#[test]
#[ignore = "takes some time: make cluster-faults"]
fn a_node_that_has_no_task_may_go_for_good() -> Test {
    around(|servers, leader| servers.kill((leader + 1) % NODES))
}

fn double(n: u64) -> u64 {
    2 * n
}

#[test]
#[ignore = "takes some time: make cluster-faults"]
fn a_session_with_three_copies_outlives_its_client_and_a_node() -> Test {
    let Some(mut servers) = Servers::start() else {
        return Ok(());
    };
    let builder = |url| ClusterExecutor::builder().url(url).key(KEY).lease(LEASE);
    let cluster = builder(servers.url(0))
        .session("s")
        .replicas(NODES)
        .build()?;
    for n in 0..200 {
        drop(cluster.submit(double, n)?);
    }
    let long = vec![7_u8; 1 << 20];
    drop(cluster.submit(|bytes: Vec<u8>| bytes, long.clone())?);
    assert!(cluster.flush(PATIENCE));
    cluster.shutdown(Shutdown::NoWait);
    drop(cluster);
    let leader = servers.leader_of("cf-tasks-default+kept");
    servers.kill(leader);
    let others = [1, 2].map(|n| (leader + n) % NODES);
    let key = [("CONCURRENT_FUTURES_KEY", KEY)];
    let _hosts = others.map(|node| Host::start(&servers.url(node), 1, &key));
    let check = |node: usize, servers: &Servers| -> Test {
        let deadline = Instant::now() + PATIENCE;
        let cluster = loop {
            match builder(servers.url(node)).attach("s") {
                Ok(cluster) => break cluster,
                // The nodes choose leaders.
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(100)),
                Err(error) => return Err(error.into()),
            }
        };
        let doubled: Result<Vec<u64>, _> = cluster
            .futures_of::<u64>()
            .into_iter()
            .map(Future::result)
            .collect();
        assert_eq!(doubled?, (0..200).map(double).collect::<Vec<_>>());
        for future in cluster.futures::<Vec<u8>>()? {
            assert!(future.result()? == long);
        }
        Ok(())
    };
    check(others[0], &servers)?;
    // The node comes back, and another one goes.
    servers.run(leader);
    thread::sleep(2 * LEASE);
    servers.kill(others[0]);
    check(leader, &servers)
}
