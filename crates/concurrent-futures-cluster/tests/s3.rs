//! Very long payloads in S3, beside the server: an endpoint on loopback, by the server of `moto` from `PyPI`.
//!
//! The endpoint is known by variables of the process. So each test runs in a process of its own that has them.

#![cfg(unix)]

mod common;

use common::{LEASE, Notes, Server, note_and_wait, wait_until};
use concurrent_futures::{ProcessPoolExecutor, TaskError};
use concurrent_futures_cluster::{ClusterBuilder, ClusterHost, ObjectStoreError};
use std::env;
use std::error::Error;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error>>;

const BUCKET: &str = "payloads";
/// The length of payloads for S3, and that above which they go there.
const LONG: usize = 3 << 20;
const ABOVE: u64 = 1 << 20;

/// Returns the program of the endpoint: named by a variable, of `PATH`, or of an environment of the project.
fn program() -> Option<PathBuf> {
    if let Some(path) = env::var_os("CONCURRENT_FUTURES_S3_SERVER") {
        return Some(path.into());
    }
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let environment = root.join(".venv/s3/bin");
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders = env::split_paths(&path).chain([environment]);
    folders.find_map(|folder| Some(folder.join("moto_server")).filter(|program| program.is_file()))
}

/// An endpoint of S3 on loopback.
struct Endpoint {
    port: u16,
    child: Child,
}

impl Endpoint {
    fn start(program: &Path) -> Result<Self, Box<dyn Error>> {
        let port = TcpListener::bind("127.0.0.1:0")?.local_addr()?.port();
        let child = Command::new(program)
            .args(["-H", "127.0.0.1", "-p", &port.to_string()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()?;
        let endpoint = Self { port, child };
        wait_until("the endpoint accepts connections", || {
            TcpStream::connect(("127.0.0.1", port)).is_ok()
        });
        Ok(endpoint)
    }
}

impl Drop for Endpoint {
    fn drop(&mut self) {
        // It has ended if that fails.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes a request of the endpoint, and returns its answer.
fn request(port: u16, method: &str, path: &str, body: &[u8]) -> Result<String, Box<dyn Error>> {
    let mut stream = TcpStream::connect(("127.0.0.1", port))?;
    write!(
        stream,
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    stream.write_all(body)?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Returns the names of the objects in the bucket.
fn objects(port: u16) -> Result<Vec<String>, Box<dyn Error>> {
    let answer = request(port, "GET", &format!("/{BUCKET}?list-type=2"), b"")?;
    assert!(answer.contains("<ListBucketResult"), "{answer}");
    let keys = answer.split("<Key>").skip(1);
    let keys = keys.filter_map(|rest| rest.split_once("</Key>"));
    Ok(keys.map(|(name, _)| name.to_owned()).collect())
}

/// Runs a test in a process of its own, which has the variables of an endpoint. `body` gets its port.
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn with_s3(test: &str, body: impl FnOnce(u16) -> Test) -> Test {
    const PORT: &str = "CLUSTER_TEST_S3_PORT";
    if let Ok(port) = env::var(PORT) {
        return body(port.parse()?);
    }
    let Some(program) = program() else {
        eprintln!("skipped: there is no moto_server; `make cluster-object-store` installs it");
        return Ok(());
    };
    let endpoint = Endpoint::start(&program)?;
    let port = endpoint.port;
    request(port, "PUT", &format!("/{BUCKET}"), b"")?;
    assert!(objects(port)?.is_empty());
    let status = Command::new(env::current_exe()?)
        .args(["--exact", test, "--nocapture"])
        .env(PORT, port.to_string())
        .env("AWS_ENDPOINT", format!("http://127.0.0.1:{port}"))
        .env("AWS_ALLOW_HTTP", "true")
        .env("AWS_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", "test")
        .env("AWS_SECRET_ACCESS_KEY", "test")
        .status()?;
    assert!(status.success(), "{status}");
    Ok(())
}

fn with_store<Role>(builder: ClusterBuilder<Role>, bucket: &str) -> ClusterBuilder<Role> {
    builder
        .object_store(format!("s3://{bucket}/below"))
        .object_store_above(ABOVE)
}

fn host(server: &Server, bucket: &str) -> Result<ClusterHost, Box<dyn Error>> {
    let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    let builder = ClusterHost::builder()
        .url(server.url())
        .lease(LEASE)
        .pool(pool);
    Ok(with_store(builder, bucket).start()?)
}

fn bytes() -> Vec<u8> {
    (0..LONG).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

fn reversed(mut bytes: Vec<u8>) -> Vec<u8> {
    bytes.reverse();
    bytes
}

fn reversed_later((folder, bytes): (String, Vec<u8>)) -> Vec<u8> {
    note_and_wait((folder, "held".into()));
    reversed(bytes)
}

#[test]
fn long_payloads_are_in_the_bucket_as_long_as_their_task() -> Test {
    let test = "long_payloads_are_in_the_bucket_as_long_as_their_task";
    with_s3(test, |port| {
        let Some(server) = Server::start() else {
            return Ok(());
        };
        let notes = Notes::new();
        let cluster = with_store(server.executor(), BUCKET).build()?;
        let _host = host(&server, BUCKET)?;
        let future = cluster.submit(reversed_later, (notes.path(), bytes()))?;
        notes.wait_for_prefix("held");
        let names = objects(port)?;
        let [name] = &names[..] else {
            panic!("{names:?}");
        };
        let parts: Vec<&str> = name.split('/').collect();
        assert_eq!(parts[..2], ["below", "default"]);
        let lengths: Vec<usize> = parts[2..].iter().map(|part| part.len()).collect();
        assert_eq!(lengths, [32, 64]);
        assert_eq!(server.parts().unwrap_or(0), 0);
        notes.write("go");
        assert!(future.result()? == reversed(bytes()));
        wait_until("argument and value are removed", || {
            objects(port).is_ok_and(|names| names.is_empty())
        });
        Ok(())
    })
}

#[test]
fn an_object_with_another_content_is_stored_again() -> Test {
    with_s3("an_object_with_another_content_is_stored_again", |port| {
        let Some(server) = Server::start() else {
            return Ok(());
        };
        let cluster = with_store(server.executor(), BUCKET).build()?;
        let future = cluster.submit(reversed, bytes())?;
        wait_until("the argument is stored", || {
            objects(port).is_ok_and(|names| names.len() == 1) && server.messages().unwrap_or(0) == 1
        });
        let name = objects(port)?.remove(0);
        request(port, "PUT", &format!("/{BUCKET}/{name}"), &vec![1; LONG])?;
        let _host = host(&server, BUCKET)?;
        assert!(future.result()? == reversed(bytes()));
        Ok(())
    })
}

#[test]
fn without_the_bucket_the_task_fails_by_an_error_that_names_it() -> Test {
    let test = "without_the_bucket_the_task_fails_by_an_error_that_names_it";
    with_s3(test, |_| {
        let Some(server) = Server::start() else {
            return Ok(());
        };
        let cluster = with_store(server.executor(), "gone").build()?;
        let error = cluster.submit(reversed, bytes())?.exception();
        let Some(TaskError::Failed(cause)) = error else {
            panic!("{error:?}");
        };
        assert!(cause.is::<ObjectStoreError>(), "{cause}");
        assert!(cause.to_string().contains("s3://gone/below"), "{cause}");
        assert!(cause.source().is_some());
        Ok(())
    })
}

#[test]
fn the_objects_of_a_session_go_when_it_is_discarded() -> Test {
    with_s3("the_objects_of_a_session_go_when_it_is_discarded", |port| {
        let Some(server) = Server::start() else {
            return Ok(());
        };
        let _host = host(&server, BUCKET)?;
        let builder = || with_store(server.executor(), BUCKET).session("s");
        let cluster = builder().build()?;
        assert!(cluster.submit(reversed, bytes())?.result()? == reversed(bytes()));
        drop(cluster);
        let later = builder().build()?;
        let future = later.futures::<Vec<u8>>()?.remove(0);
        assert!(future.result()? == reversed(bytes()));
        assert_eq!(objects(port)?.len(), 2);
        later.discard()?;
        assert_eq!(objects(port)?, [""; 0]);
        Ok(())
    })
}
