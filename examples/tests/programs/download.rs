//! Tests of the download program, with real files and real failures.

use crate::command::{Ended, names, run};
use examples::download::gallery;
use examples::server::{Reply, Server};
use hyper::StatusCode;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;
use tempfile::TempDir;

const DOWNLOAD: &str = env!("CARGO_BIN_EXE_download");

/// A list of URLs, and a folder to download them into.
pub(crate) struct Place {
    place: TempDir,
}

impl Place {
    pub(crate) fn new(lines: &[String]) -> Self {
        let place = tempfile::tempdir().unwrap();
        fs::write(place.path().join("urls.txt"), lines.join("\n")).unwrap();
        Self { place }
    }

    pub(crate) fn list(&self) -> PathBuf {
        self.place.path().join("urls.txt")
    }

    pub(crate) fn folder(&self) -> PathBuf {
        self.place.path().join("files")
    }

    fn download(&self, options: &[&str]) -> Ended {
        let options = options.iter().map(PathBuf::from);
        run(DOWNLOAD, options.chain([self.list(), self.folder()]))
    }

    fn read(&self, name: &str) -> String {
        fs::read_to_string(self.folder().join(name)).unwrap()
    }
}

fn text(text: &str) -> Reply {
    Reply::ok("text/plain", text.to_owned())
}

/// Starts a server that reports the requests that it receives.
fn observed(site: impl Fn(&str) -> Reply + Send + Sync + 'static) -> (Server, Receiver<String>) {
    let (asked, paths) = channel();
    let server = Server::start(move |path| {
        asked.send(path.to_owned()).unwrap();
        site(path)
    });
    (server.unwrap(), paths)
}

#[test]
fn saves_all_files_and_nothing_else() {
    let server = Server::start(text).unwrap();
    let place = Place::new(&["/a", "/b", "/c"].map(|path| server.url(path)));
    let ended = place.download(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(
        ended
            .stdout
            .starts_with("files: 3, bytes: 6 (6 B), failures: 0, time: ")
    );
    assert_eq!(ended.stderr, "");
    assert_eq!(names(&place.folder()), ["a", "b", "c"]);
    assert_eq!(place.read("b"), "/b");
}

#[test]
fn replaces_a_file_only_when_the_new_one_is_complete() {
    let server = Server::start(|path| match path {
        "/a" => text("new"),
        _ => text("new").broken_off(),
    });
    let server = server.unwrap();
    let place = Place::new(&["/a", "/b"].map(|path| server.url(path)));
    fs::create_dir(place.folder()).unwrap();
    fs::write(place.folder().join("a"), "old and longer").unwrap();
    fs::write(place.folder().join("b"), "old and longer").unwrap();
    assert_eq!(place.download(&["--retries=0"]).code, Some(1));
    assert_eq!(place.read("a"), "new");
    assert_eq!(place.read("b"), "old and longer");
    assert_eq!(names(&place.folder()), ["a", "b"]);
}

#[test]
fn failures_leave_no_half_file_and_stop_nobody() {
    // A port that no program listens on, and that the system gives to no program by chance.
    let refused = String::from("http://127.0.0.1:1/refused");
    let server = Server::start(|path| match path {
        "/missing" => Reply::status(StatusCode::NOT_FOUND),
        "/half" => text("0123456789").broken_off(),
        _ => text(path),
    });
    let server = server.unwrap();
    let place = Place::new(&[
        server.url("/missing"),
        String::from("# a comment"),
        String::from("no url"),
        server.url("/half"),
        refused.clone(),
        String::from("ftp://127.0.0.1/file"),
        String::new(),
        server.url("/good"),
    ]);
    let ended = place.download(&["--retries=1", "--workers=2"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(names(&place.folder()), ["good"]);

    for failure in [
        format!("failed: {}: 404 Not Found\n", server.url("/missing")),
        format!(
            "failed: {}: broke off after 5 of 10 bytes\n",
            server.url("/half")
        ),
        format!("failed: {refused}: "),
        String::from("failed: line 3, \"no url\": not a URL: "),
        String::from("failed: line 6, \"ftp://127.0.0.1/file\": neither http nor https, but ftp\n"),
        String::from("files: 1, bytes: 5 (5 B), failures: 5, time: "),
    ] {
        assert!(
            ended.stdout.contains(&failure),
            "{failure} in {}",
            ended.stdout
        );
    }
}

#[test]
fn tries_again_after_a_transient_failure_only() {
    let (server, paths) = observed(|path| match path {
        "/missing" => Reply::status(StatusCode::NOT_FOUND),
        "/error" => Reply::status(StatusCode::INTERNAL_SERVER_ERROR),
        "/busy" => Reply::status(StatusCode::TOO_MANY_REQUESTS),
        _ => text("0123456789").broken_off(),
    });
    let urls = ["/missing", "/error", "/busy", "/half"];
    let place = Place::new(&urls.map(|path| server.url(path)));
    assert_eq!(place.download(&["--retries=1"]).code, Some(1));
    let asked: Vec<_> = paths.try_iter().collect();
    let times = urls.map(|url| asked.iter().filter(|path| *path == url).count());
    assert_eq!(times, [1, 2, 2, 2]);
    assert!(names(&place.folder()).is_empty());
}

#[test]
fn a_later_try_can_succeed() {
    let (again, first) = (text("at last"), StatusCode::SERVICE_UNAVAILABLE);
    let tries = AtomicUsize::new(0);
    let (server, paths) = observed(move |_| match tries.fetch_add(1, Ordering::Relaxed) {
        0 => Reply::status(first),
        1 => again.clone().broken_off(),
        _ => again.clone(),
    });
    let place = Place::new(&[server.url("/file")]);
    let ended = place.download(&["--retries=2"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert_eq!(paths.try_iter().count(), 3);
    assert_eq!(place.read("file"), "at last");
}

#[test]
fn a_silent_server_is_given_up() {
    let server = Server::start(|path| match path {
        "/head" => text("never").after(Duration::MAX),
        _ => text("half of it never").stalled(),
    });
    let server = server.unwrap();
    let place = Place::new(&["/head", "/body"].map(|path| server.url(path)));
    let ended = place.download(&["--timeout=0.1", "--retries=0"]);
    assert_eq!(ended.code, Some(1), "{ended:?}");
    assert_eq!(ended.stdout.matches(": timeout").count(), 2, "{ended:?}");
    assert!(names(&place.folder()).is_empty());
}

#[test]
fn unsafe_names_are_made_safe() {
    let server = Server::start(text).unwrap();
    let long = format!("/{}.jpg", "x".repeat(300));
    let place = Place::new(
        &[
            "/../../etc/passwd",
            "/..%2F..%2Fetc%2Fpasswd",
            "/a/b?c=d",
            "/CON",
            "/",
            "/one/same.jpg",
            "/two/same.jpg",
            "/two/SAME.jpg",
            &long,
        ]
        .map(|path| server.url(path)),
    );
    let ended = place.download(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let expected = [
        "SAME-3.jpg",
        "_.._etc_passwd",
        "_CON",
        "b_c=d",
        "index.html",
        "passwd",
        "same-2.jpg",
        "same.jpg",
        &format!("{}.jpg", "x".repeat(116)),
    ];
    assert_eq!(names(&place.folder()), expected);
    assert_eq!(names(place.place.path()), ["files", "urls.txt"]);
    assert_eq!(place.read("same-2.jpg"), "/two/same.jpg");
    assert_eq!(place.read("b_c=d"), "/a/b?c=d");
}

#[test]
fn a_name_that_is_a_folder_is_a_failure() {
    let server = Server::start(text).unwrap();
    let place = Place::new(&["/taken", "/free"].map(|path| server.url(path)));
    fs::create_dir_all(place.folder().join("taken")).unwrap();
    let ended = place.download(&[]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.contains("/taken: cannot write the file: "));
    assert_eq!(names(&place.folder()), ["free", "taken"]);
}

#[test]
fn an_empty_list_is_no_failure() {
    let place = Place::new(&[]);
    let ended = place.download(&[]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    assert!(ended.stdout.starts_with("files: 0, "));
    assert!(names(&place.folder()).is_empty());
}

#[test]
fn a_folder_that_cannot_be_written_is_told() {
    let place = Place::new(&[]);
    fs::write(place.folder(), "a file").unwrap();
    let ended = place.download(&[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.starts_with("download: cannot write to "));
}

#[test]
fn a_list_that_cannot_be_read_is_told() {
    let place = Place::new(&[]);
    fs::remove_file(place.list()).unwrap();
    let ended = place.download(&[]);
    assert_eq!((ended.code, ended.stdout.as_str()), (Some(2), ""));
    assert!(ended.stderr.starts_with("download: cannot read "));
    assert!(!place.folder().exists());
}

#[test]
fn wrong_usage_is_told() {
    let wrong: [&[&str]; 8] = [
        &[],
        &["list"],
        &["list", "folder", "more"],
        &["--workers=0", "list", "folder"],
        &["--timeout=0", "list", "folder"],
        &["--timeout=soon", "list", "folder"],
        &["--retries=-1", "list", "folder"],
        &["--demo", "list", "folder"],
    ];
    for arguments in wrong {
        let ended = run(DOWNLOAD, arguments);
        assert_eq!(ended.code, Some(2), "{arguments:?}");
        assert!(ended.stderr.starts_with("error: "), "{ended:?}");
    }
    assert!(!Path::new("folder").exists());
}

#[test]
fn the_demonstration_fails_only_where_it_should() {
    let ended = run(DOWNLOAD, ["--demo"]);
    assert_eq!(ended.code, Some(0), "{ended:?}");
    let lines = ended.lines();
    let bytes: usize = (0..gallery::COUNT)
        .filter(|n| ![7, 23, 31, 64].contains(n))
        .map(|n| gallery::picture(n).len())
        .sum();
    for (line, name) in [
        (lines[1], "one after another"),
        (lines[2], "pool of 20 workers"),
    ] {
        let columns = line.strip_prefix(name).unwrap().replace(',', "");
        let columns: Vec<_> = columns.split_whitespace().collect();
        assert_eq!(columns[..3], ["76", &bytes.to_string(), "4"]);
    }
    // 80 times 50 ms; how much faster the pool is depends on the machine.
    let before = lines[1].split_whitespace().last().unwrap();
    assert!(before.trim_end_matches('s').parse::<f64>().unwrap() >= 4.0);
    for number in [7, 31, 64] {
        let end = format!("/{}: 404 Not Found", gallery::name(number));
        assert!(lines.iter().any(|line| line.ends_with(&end)));
    }
    assert!(
        ended
            .stdout
            .contains(&format!("/{}: broke off after ", gallery::name(23)))
    );
}
