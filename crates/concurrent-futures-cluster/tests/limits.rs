//! A server without room, frames without sense, and a million tasks.

#![cfg(unix)]

mod common;

use common::load::Load;
use common::{LEASE, PATIENCE, Server, wait_until, wait_until_empty};
use concurrent_futures::TaskError;
use concurrent_futures_cluster::{ClusterExecutor, NoWorkersError};
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use std::error::Error;
use std::fs;
use std::time::Duration;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error + Send + Sync>>;

#[allow(clippy::needless_pass_by_value, reason = "a task owns its argument")]
fn length_of(bytes: Vec<u8>) -> usize {
    bytes.len()
}

#[test]
fn tasks_wait_for_room_in_the_memory_of_the_server() -> Test {
    // The arguments of all tasks are several times as long.
    let Some(server) = Server::start_with("nats", "jetstream { max_mem: 4MB }") else {
        return Ok(());
    };
    let _host = server.host(2);
    let cluster = server.executor().build()?;
    let futures: Vec<_> = (0..100)
        .map(|n| cluster.submit(length_of, vec![7_u8; 200_000 + n]))
        .collect::<Result<_, _>>()?;
    for (n, mut future) in futures.into_iter().enumerate() {
        assert_eq!(future.result_timeout(PATIENCE)?, 200_000 + n);
    }
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

/// A small disk in memory.
struct Disk(tempfile::TempDir);

impl Disk {
    /// Makes a disk; none without the right to.
    fn new() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        let size = c"size=512k";
        mount("tmpfs", folder.path(), "tmpfs", MountFlags::empty(), size).ok()?;
        Some(Self(folder))
    }

    /// Fills the disk up.
    fn fill(&self) {
        let mut size = 1 << 20;
        while size > 0 {
            let path = self.0.path().join(format!("fill-{size}"));
            if fs::write(&path, vec![0; size]).is_err() {
                size /= 2;
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // A failure leaves a mount, and no test reads it.
        let _ = unmount(self.0.path(), UnmountFlags::DETACH);
    }
}

#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn a_full_disk_of_the_server_stops_no_task() -> Test {
    let Some(disk) = Disk::new() else {
        eprintln!("skipped: this process may not mount a small disk");
        return Ok(());
    };
    let folder = disk.0.path().join("jetstream");
    let settings = format!("jetstream {{ store_dir: \"{}\" }}", folder.display());
    let Some(server) = Server::start_with("nats", &settings) else {
        return Ok(());
    };
    let _host = server.host(2);
    let cluster = server.executor().build()?;
    let mut load = Load::new();
    for n in 0..50 {
        load.add(&cluster, 2, if n % 20 == 7 { 300_000 } else { 10 })?;
    }
    wait_until("some are done", || load.done() >= 10);
    disk.fill();
    for n in 0..50 {
        load.add(&cluster, 2, if n % 20 == 7 { 300_000 } else { 10 })?;
    }
    load.check()?;
    // Its stores are to be made anew on the full disk.
    server.delete_tasks()?;
    let mut load = Load::new();
    for _ in 0..50 {
        load.add(&cluster, 2, 10)?;
    }
    load.check()?;
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

/// Numbers that look random, and are the same in each run. Half of the frames are of the version.
fn random_frames(count: usize, version: u8) -> Vec<Vec<u8>> {
    let mut state = 7_u64;
    let mut next = move || {
        state = state
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(0x1405_7b7e_f767_814f);
        state >> 33
    };
    (0..count)
        .map(|_| {
            let length = usize::try_from(next() % 200).unwrap();
            let mut frame: Vec<u8> = (0..length).map(|_| next().to_le_bytes()[0]).collect();
            if let (Some(first), 0) = (frame.first_mut(), next() % 2) {
                *first = version;
            }
            frame
        })
        .collect()
}

#[test]
fn frames_without_sense_change_nothing() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(1);
    let cluster = server.executor().build()?;
    let mut load = Load::new();
    let (sessions, version) = server.ask(async |context| {
        // The first report of the host tells the session of the client, and the version of all messages.
        let mut reports = context.client().subscribe("cf.c.*").await?;
        context.client().flush().await?;
        load.add(&cluster, 1, 10)?;
        let report = futures_util::StreamExt::next(&mut reports).await;
        let report = report.ok_or("no report")?;
        let session = report.subject.as_str().replace("cf.c.", "");
        let subjects = [format!("cf.c.{session}"), format!("cf.q.{session}")];
        Ok((subjects, report.payload[0]))
    })?;
    wait_until("it is done", || load.done() == 1);
    // Without a key, frames are read as far as they make sense.
    let subjects = server.ask(async |context| {
        let info = context.get_stream("cf-tasks-default").await?;
        let consumers: Vec<String> =
            futures_util::TryStreamExt::try_collect(info.consumer_names()).await?;
        let lanes = consumers.iter().filter_map(|name| name.rsplit_once('-'));
        let lanes =
            lanes.map(|(environment, priority)| format!("cf.t.default.{environment}.{priority}"));
        let mut subjects: Vec<String> = lanes.collect();
        subjects.extend(["cf.h.default.all".into(), "cf.w.default".into()]);
        subjects.extend(sessions);
        for frame in random_frames(3_000, version) {
            for subject in &subjects {
                let mut headers = async_nats::HeaderMap::new();
                headers.insert("Nats-Msg-Id", format!("{}-{subject}", frame.len()));
                let client = context.client();
                client
                    .publish_with_headers(subject.clone(), headers, frame.clone().into())
                    .await?;
                client
                    .publish(subject.clone(), frame.clone().into())
                    .await?;
            }
        }
        context.client().flush().await?;
        Ok(subjects)
    })?;
    assert_eq!(subjects.len(), 7);
    for _ in 0..50 {
        load.add(&cluster, 1, 10)?;
    }
    load.check()?;
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}

#[test]
fn hosts_of_another_build_key_or_queue_get_no_task() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _hosts = [
        server.host_with(1, &[("CONCURRENT_FUTURES_KEY", "wrong")]),
        server.host_with(1, &[("CONCURRENT_FUTURES_QUEUE", "other")]),
        server.host(1),
    ];
    let executor = |tag: &str| {
        let builder = server.executor().tag(tag).key("right");
        builder.wait_for_workers(LEASE).build()
    };
    let error = executor("")?.submit(length_of, vec![1])?.result();
    let Err(TaskError::Failed(cause)) = &error else {
        panic!("{error:?}");
    };
    assert!(cause.is::<NoWorkersError>(), "{cause}");
    // Two hosts of the queue have other keys, one of them none.
    assert!(
        cause
            .to_string()
            .contains("2 hosts of the queue have another key or version"),
        "{cause}"
    );
    // The environment of another build differs as that of another tag does.
    let builder = server.executor().tag("other build");
    let cluster = builder.wait_for_workers(LEASE).build()?;
    let error = cluster.submit(length_of, vec![1])?.result();
    assert!(matches!(&error, Err(TaskError::Failed(cause)) if cause.is::<NoWorkersError>()));
    Ok(())
}

#[test]
#[ignore = "takes some minutes: make cluster-million"]
#[allow(clippy::print_stderr, reason = "tells how long it took")]
fn a_million_tasks_are_done_once_each() -> Test {
    const TASKS: u64 = 1_000_000;
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let _host = server.host(2);
    let cluster = ClusterExecutor::builder().url(server.url()).build()?;
    let began = std::time::Instant::now();
    let futures: Vec<_> = (0..TASKS)
        .map(|n| cluster.submit(|n: u64| 3 * n, n))
        .collect::<Result<_, _>>()?;
    eprintln!("submitted after {:?}", began.elapsed());
    for (n, mut future) in futures.into_iter().enumerate() {
        assert_eq!(
            future.result_timeout(Duration::from_secs(600))?,
            3 * n as u64
        );
    }
    eprintln!("done after {:?}", began.elapsed());
    drop(cluster);
    wait_until_empty(&server);
    Ok(())
}
