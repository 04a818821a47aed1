//! Tests that the download program stops promptly at Ctrl-C, and leaves no file half done.

use crate::command::{Ended, names};
use crate::download::Place;
use examples::server::{Reply, Server};
use rustix::process::{Pid, Signal, kill_process};
use std::fs;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time limit of a prompt end, far above the usual time, and below the program's own limits.
const PROMPTLY: Duration = Duration::from_secs(30);

/// Starts the program, for a list of ten URLs and with four workers.
fn start(reply: fn(&str) -> Reply) -> (Server, Receiver<()>, Place, Child) {
    let (asked, requests) = channel();
    let server = Server::start(move |path| {
        asked.send(()).unwrap();
        reply(path)
    });
    let server = server.unwrap();
    let urls: Vec<_> = (0..10)
        .map(|number| server.url(&format!("/{number}")))
        .collect();
    let place = Place::new(&urls);
    let child = Command::new(env!("CARGO_BIN_EXE_download"))
        .args(["--workers=4", "--timeout=3600"])
        .args([place.list(), place.folder()])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    (server, requests, place, child.unwrap())
}

fn wait_for(requests: &Receiver<()>, number: usize) {
    for _ in 0..number {
        requests.recv_timeout(PROMPTLY).unwrap();
    }
}

/// Presses Ctrl-C and waits for the end.
fn interrupt(mut child: Child) -> Ended {
    let id = Pid::from_raw(child.id().try_into().unwrap()).unwrap();
    kill_process(id, Signal::INT).unwrap();
    let start = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if start.elapsed() > PROMPTLY {
            child.kill().unwrap();
            panic!("still running: {:?}", child.wait_with_output());
        }
        sleep(Duration::from_millis(1));
    }
    Ended::from(child.wait_with_output().unwrap())
}

#[test]
fn while_no_answer_comes() {
    let (_server, requests, place, child) =
        start(|_| Reply::ok("text/plain", "never").after(Duration::MAX));
    wait_for(&requests, 4);
    let ended = interrupt(child);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("interrupted, not downloaded: 10\nfiles: 0,")
    );
    assert!(names(&place.folder()).is_empty());
    // The others were not even begun.
    assert_eq!(requests.try_iter().count(), 0);
}

#[test]
fn while_files_are_half_written() {
    let (_server, requests, place, child) =
        start(|_| Reply::ok("text/plain", "half of it never").stalled());
    wait_for(&requests, 4);
    while unfinished(&place) < 4 {
        sleep(Duration::from_millis(1));
    }
    let ended = interrupt(child);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(names(&place.folder()).is_empty());
}

/// Returns the number of files that are begun and not complete.
fn unfinished(place: &Place) -> usize {
    let folders = fs::read_dir(place.folder()).unwrap();
    folders
        .map(|folder| names(&folder.unwrap().path()).len())
        .sum()
}

#[test]
fn complete_files_stay() {
    let (_server, requests, place, child) = start(|path| match path {
        "/0" => Reply::ok("text/plain", "complete"),
        _ => Reply::ok("text/plain", "never").after(Duration::MAX),
    });
    // With four workers, the fifth request means that the first is done.
    wait_for(&requests, 5);
    let ended = interrupt(child);
    assert_eq!(ended.code, Some(130), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("interrupted, not downloaded: 9\nfiles: 1,")
    );
    assert_eq!(names(&place.folder()), ["0"]);
    assert_eq!(
        fs::read_to_string(place.folder().join("0")).unwrap(),
        "complete"
    );
}
