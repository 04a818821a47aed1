//! Very long payloads in a folder that machines share, beside the server.

#![cfg(unix)]

mod common;

use common::{LEASE, Notes, Server, note_and_wait, wait_until};
use concurrent_futures::{ProcessPoolExecutor, TaskError};
use concurrent_futures_cluster::{
    ClusterBuilder, ClusterError, ClusterExecutor, ClusterHost, ObjectStoreError,
};
use std::error::Error;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use tempfile::TempDir;

concurrent_futures_cluster::init_before_main!();

type Test = Result<(), Box<dyn Error>>;

/// The length of payloads for the folder, and that above which they go there.
const LONG: usize = 3 << 20;
const ABOVE: u64 = 1 << 20;

fn address(folder: &Path) -> String {
    format!("file://{}", folder.display())
}

fn with_store<Role>(builder: ClusterBuilder<Role>, folder: &Path) -> ClusterBuilder<Role> {
    builder
        .object_store(address(folder))
        .object_store_above(ABOVE)
}

/// Starts a host, whose folder is this one, if there is one.
fn host(server: &Server, folder: Option<&Path>) -> Result<ClusterHost, Box<dyn Error>> {
    let pool = ProcessPoolExecutor::builder().max_workers(1).build()?;
    let mut builder = ClusterHost::builder()
        .url(server.url())
        .lease(LEASE)
        .pool(pool);
    if let Some(folder) = folder {
        builder = with_store(builder, folder);
    }
    Ok(builder.start()?)
}

/// Returns the files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            found.push(path);
        }
    }
    found
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

fn zeros(length: u64) -> Vec<u8> {
    vec![0; usize::try_from(length).unwrap()]
}

/// Returns the error of the object store by which a task has failed.
fn store_error(error: Option<TaskError>) -> Arc<dyn Error + Send + Sync> {
    match error {
        Some(TaskError::Failed(cause)) if cause.is::<ObjectStoreError>() => cause,
        other => panic!("{other:?}"),
    }
}

#[test]
fn long_payloads_are_in_the_folder_as_long_as_their_task() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let (shared, notes) = (TempDir::new()?, Notes::new());
    let cluster = with_store(server.executor(), shared.path()).build()?;
    let _host = host(&server, Some(shared.path()))?;
    let future = cluster.submit(reversed_later, (notes.path(), bytes()))?;
    notes.wait_for_prefix("held");
    let [file] = &files(shared.path())[..] else {
        panic!("{:?}", files(shared.path()))
    };
    let name = file.strip_prefix(shared.path())?.to_str().unwrap();
    let parts: Vec<&str> = name.split('/').collect();
    assert_eq!(parts[0], "default");
    assert_eq!(
        parts[1..].iter().map(|part| part.len()).collect::<Vec<_>>(),
        [32, 64]
    );
    assert_eq!(server.parts().unwrap_or(0), 0);
    notes.write("go");
    assert!(future.result()? == reversed(bytes()));
    wait_until("argument and value are removed", || {
        files(shared.path()).is_empty()
    });
    Ok(())
}

#[test]
fn an_object_with_another_content_is_stored_again() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let shared = TempDir::new()?;
    let cluster = with_store(server.executor(), shared.path()).build()?;
    let future = cluster.submit(reversed, bytes())?;
    wait_until("the argument is stored", || {
        files(shared.path()).len() == 1 && server.messages().unwrap_or(0) == 1
    });
    fs::write(&files(shared.path())[0], vec![1; LONG])?;
    let _host = host(&server, Some(shared.path()))?;
    assert!(future.result()? == reversed(bytes()));
    Ok(())
}

#[test]
fn without_the_folder_tasks_fail_by_an_error_that_names_it() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let (ours, theirs) = (TempDir::new()?, TempDir::new()?);
    let cluster = with_store(server.executor(), ours.path()).build()?;
    let _host = host(&server, Some(theirs.path()))?;
    fs::remove_dir(theirs.path())?;
    let error = store_error(cluster.submit(zeros, LONG as u64)?.exception());
    let text = error.to_string();
    assert!(text.contains(&address(theirs.path())), "{text}");
    assert!(text.contains("on the host"), "{text}");
    fs::remove_dir(ours.path())?;
    let error = store_error(cluster.submit(reversed, bytes())?.exception());
    let text = error.to_string();
    assert!(text.contains(&address(ours.path())), "{text}");
    assert!(error.source().is_some());
    // It may be a disk that is not mounted.
    assert!(!ours.path().exists() && !theirs.path().exists());
    let built = with_store(server.executor(), ours.path()).build();
    assert!(
        matches!(built, Err(ClusterError::ObjectStore(_))),
        "{built:?}"
    );
    Ok(())
}

#[cfg(target_os = "linux")]
#[test]
#[allow(clippy::print_stderr, reason = "says that it was skipped")]
fn a_full_folder_fails_the_task_by_an_error_that_names_it() -> Test {
    use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

    struct Mounted<'a>(&'a Path);
    impl Drop for Mounted<'_> {
        fn drop(&mut self) {
            // A folder that stays mounted says so when it is removed.
            let _ = unmount(self.0, UnmountFlags::DETACH);
        }
    }
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let shared = TempDir::new()?;
    let small = Some(c"size=1m");
    if let Err(error) = mount("tmpfs", shared.path(), "tmpfs", MountFlags::empty(), small) {
        eprintln!("skipped: a small disk cannot be mounted: {error}");
        return Ok(());
    }
    let _mounted = Mounted(shared.path());
    let cluster = with_store(server.executor(), shared.path()).build()?;
    let error = store_error(cluster.submit(reversed, bytes())?.exception());
    let text = error.to_string();
    assert!(text.contains(&address(shared.path())), "{text}");
    Ok(())
}

#[test]
fn a_party_without_the_store_of_a_payload_says_what_to_set() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let shared = TempDir::new()?;
    let with = with_store(server.executor(), shared.path()).build()?;
    let without = server.executor().build()?;
    {
        let _host = host(&server, None)?;
        let error = store_error(with.submit(reversed, bytes())?.exception());
        let text = error.to_string();
        assert!(text.contains("on the host"), "{text}");
        assert!(text.contains("object_store"), "{text}");
        // The server has those of both.
        assert!(without.submit(reversed, bytes())?.result()? == reversed(bytes()));
    }
    let _host = host(&server, Some(shared.path()))?;
    let error = store_error(without.submit(reversed, bytes())?.exception());
    assert!(error.to_string().contains("object_store"), "{error}");
    Ok(())
}

#[test]
fn the_objects_of_a_session_go_when_it_is_discarded() -> Test {
    let Some(server) = Server::start() else {
        return Ok(());
    };
    let shared = TempDir::new()?;
    let _host = host(&server, Some(shared.path()))?;
    let builder = || with_store(server.executor(), shared.path()).session("s");
    let cluster: ClusterExecutor = builder().build()?;
    assert!(cluster.submit(reversed, bytes())?.result()? == reversed(bytes()));
    drop(cluster);
    let later = builder().build()?;
    let future = later.futures::<Vec<u8>>()?.remove(0);
    assert!(future.result()? == reversed(bytes()));
    assert_eq!(files(shared.path()).len(), 2);
    later.discard()?;
    assert!(files(shared.path()).is_empty());
    Ok(())
}
