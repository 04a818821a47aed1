//! The short programs.

use crate::command::{Ended, run, succeed};
use examples::pages::page;
use std::fs;

/// Short enough for tests; the sleeps only need to be there.
const FAST: [&str; 2] = ["--second", "0.02"];

/// Where a line is; fails if it is not there once.
fn position(lines: &[&str], line: &str) -> usize {
    let found: Vec<_> = (0..lines.len()).filter(|i| lines[*i] == line).collect();
    assert_eq!(found.len(), 1, "{line:?} in {lines:#?}");
    found[0]
}

fn sorted<'a>(lines: &[&'a str]) -> Vec<&'a str> {
    let mut lines = lines.to_vec();
    lines.sort_unstable();
    lines
}

#[track_caller]
fn assert_sums(ended: &Ended, sum: u64) {
    let results: Vec<_> = (1..=10)
        .map(|number| format!("number {number}, result {}", number * sum))
        .collect();
    let lines = ended.lines();
    assert_eq!(lines.len(), 33);
    assert_eq!(lines[..10], results);
    assert!(lines[10].starts_with("one after another: "));
    assert_eq!(lines[11..21], results);
    assert!(lines[21].starts_with("pool of 5 threads: "));
    assert_eq!(lines[22..32], results);
    assert!(lines[32].starts_with("pool of 5 processes: "));
}

#[test]
fn sum_is_the_same_all_ways() {
    let sum = env!("CARGO_BIN_EXE_sum");
    assert_sums(&succeed(sum, [""; 0]), 50_000_005_000_000);
    assert_sums(&succeed(sum, ["100"]), 5050);
    assert_sums(&succeed(sum, ["0"]), 0);
}

#[test]
fn sum_refuses_what_is_no_limit() {
    for wrong in ["-1", "ten", "100000000000"] {
        assert_eq!(run(env!("CARGO_BIN_EXE_sum"), [wrong]).code, Some(2));
    }
}

#[test]
fn hello_prints_both_results_in_order() {
    let ended = succeed(env!("CARGO_BIN_EXE_hello"), FAST);
    let lines = ended.lines();
    // Usually false and true, but a busy machine may sleep longer.
    for done in &lines[..2] {
        assert!(["false", "true"].contains(done));
    }
    assert_eq!(lines[2..], ["hello", "world"]);
}

#[test]
fn hello_refuses_what_is_no_second() {
    for wrong in ["-1", "inf", "NaN", "one"] {
        let ended = run(env!("CARGO_BIN_EXE_hello"), [format!("--second={wrong}")]);
        assert_eq!(ended.code, Some(2));
    }
}

#[test]
fn load_url_prints_sizes_and_the_error() {
    let ended = succeed(env!("CARGO_BIN_EXE_load_url"), [""; 0]);
    let mut lines = ended.lines();
    lines.sort_by_key(|line| line.split_once('"').unwrap().1.split_once('"').unwrap().0);
    let [missing, first, third] = lines[..] else {
        panic!("{lines:#?}");
    };
    assert!(missing.contains("/missing\" generated an exception: "));
    assert!(missing.contains("404"), "{missing}");
    for (line, number) in [(first, 1), (third, 3)] {
        let length = page(number).len();
        let end = format!("/page/{number}\" page is {length} bytes");
        assert!(line.ends_with(&end), "{line}");
    }
}

#[test]
fn map_lists_adds_the_numbers() {
    let ended = succeed(env!("CARGO_BIN_EXE_map_lists"), [""; 0]);
    assert_eq!(ended.lines(), ["1 + 5 = 6", "2 + 6 = 8", "3 + 7 = 10"]);
}

#[test]
fn map_order_is_that_of_the_items_and_as_completed_follows_the_tasks() {
    let ended = succeed(env!("CARGO_BIN_EXE_map_order"), FAST);
    let lines = ended.lines();
    let middle = position(&lines, "as_completed");
    let (map, as_completed) = (&lines[1..middle], &lines[middle + 1..]);

    assert_eq!(lines[0], "map");
    let done = map.iter().filter(|line| line.starts_with("Done"));
    assert!(done.eq(&["Done-- 3", "Done-- 1", "Done-- 2"]));

    for section in [map, as_completed] {
        assert_eq!(section.len(), 6);
        for times in 1..=3 {
            let get = position(section, &format!("Get-- {times}"));
            assert!(get < position(section, &format!("Done-- {times}")));
        }
    }
}

#[test]
fn map_times_stamps_results_in_the_order_of_the_tasks() {
    let ended = succeed(env!("CARGO_BIN_EXE_map_times"), FAST);
    let lines: Vec<_> = ended.lines();
    let texts: Vec<_> = lines
        .iter()
        .map(|line| {
            let (time, text) = line.split_once(' ').unwrap();
            let is_time = time.char_indices().all(|(i, c)| match i {
                2 | 5 => c == ':',
                _ => c.is_ascii_digit(),
            });
            assert!(is_time && time.len() == 8, "{line}");
            text.trim_start()
        })
        .collect();

    assert_eq!(texts.len(), 3 + 6 * 3);
    assert_eq!(texts[0], "********** Starting **********");
    let waiting = position(&texts, "Waiting for individual results:");
    let mut before = waiting;
    for n in 0..6 {
        let start = position(&texts, &format!("wait({n}): doing nothing for {n}s..."));
        let done = position(&texts, &format!("wait({n}): done."));
        let result = position(&texts, &format!("result {n}: {}", n * 10));
        assert!(start < done && done < result && before < result);
        before = result;
    }
}

#[test]
fn primes_tells_the_primes() {
    let ended = succeed(env!("CARGO_BIN_EXE_primes"), [""; 0]);
    let expected = [
        "112272535095293 is prime: true",
        "112582705942171 is prime: true",
        "112272535095293 is prime: true",
        "115280095190773 is prime: true",
        "115797848077099 is prime: true",
        "1099726899285419 is prime: false",
    ];
    assert_eq!(ended.lines(), expected);
}

#[test]
fn shutdown_finishes_the_tasks_with_and_without_waiting() {
    let ended = succeed(env!("CARGO_BIN_EXE_shutdown"), FAST);
    let lines = ended.lines();
    let names = ["0", "1", "2", "3", "4"].map(|number| format!("name task-{number}"));

    let middle = position(&lines, "shutdown, wait: false");
    let waited = &lines[..middle];
    assert_eq!(waited[0], "shutdown, wait: true");
    assert_eq!(sorted(&waited[1..6]), names);
    // Three rounds, for there are two workers.
    assert!(cost(waited[6]) >= 3.0 * 0.02);
    assert_eq!(waited.len(), 7);

    let mut after = lines[middle + 1..].to_vec();
    assert_eq!(after.len(), 6);
    after.retain(|line| !line.starts_with("cost: "));
    assert_eq!(sorted(&after), names);
}

fn cost(line: &str) -> f64 {
    let cost = line
        .strip_prefix("cost: ")
        .and_then(|l| l.strip_suffix(" s"));
    cost.unwrap().parse().unwrap()
}

#[test]
fn first_completed_divides_done_and_not_done() {
    let ended = succeed(env!("CARGO_BIN_EXE_first_completed"), FAST);
    let lines = ended.lines();
    let find = |start: &str| lines.iter().position(|line| line.starts_with(start));
    let (done, not_done) = (find("done: ").unwrap(), find("not done: ").unwrap());
    assert!(find("Get-- ").unwrap() < done);
    assert!(done < not_done && not_done < position(&lines, "main"));

    let finished = lines[done].matches("state=finished").count();
    assert!(finished >= 1);
    assert_eq!(finished + lines[not_done].matches("<Future").count(), 3);
    let gets = lines.iter().filter(|line| line.starts_with("Get"));
    let gets: Vec<_> = gets.copied().collect();
    assert_eq!(sorted(&gets), ["Get-- 1", "Get-- 2", "Get-- 3"]);
}

#[test]
fn callbacks_append_a_line_for_each_page() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("db.txt");
    fs::write(&file, "an older line\n").unwrap();
    let ended = succeed(env!("CARGO_BIN_EXE_callbacks"), [&file]);

    let lines = ended.lines();
    assert_eq!(lines.len(), 10);
    let db = fs::read_to_string(&file).unwrap();
    let db: Vec<_> = db.lines().collect();
    assert_eq!((db.len(), db[0]), (6, "an older line"));
    for number in 1..=5 {
        let path = format!("/page/{number}");
        let get = lines
            .iter()
            .position(|line| line.contains("> get ") && line.ends_with(&path));
        let parse = lines
            .iter()
            .position(|line| line.contains("> parse ") && line.ends_with(&path));
        assert!(get.unwrap() < parse.unwrap());
        let end = format!("{path}> size:[{}]", page(number).len());
        let found = db.iter().filter(|line| line.starts_with("url:<http://"));
        assert_eq!(found.filter(|line| line.ends_with(&end)).count(), 1);
    }
}

#[test]
fn callbacks_need_a_file_that_can_be_written() {
    let folder = tempfile::tempdir().unwrap();
    let ended = run(env!("CARGO_BIN_EXE_callbacks"), [folder.path()]);
    assert_eq!(ended.code, Some(1));
    assert!(ended.stdout.is_empty());
}

#[test]
fn processes_count_the_same_primes_and_survive_crashes() {
    let ended = succeed(env!("CARGO_BIN_EXE_processes"), ["100000"]);
    let lines = ended.lines();
    for (line, name) in lines
        .iter()
        .zip(["one after another", "threads", "processes"])
    {
        assert!(
            line.starts_with(name) && line.contains("9592 primes"),
            "{line}"
        );
    }
    assert_eq!(lines[3], "200 tasks: 195 results, 5 crashes:");
    assert_eq!(lines.len(), 9);
    for line in &lines[4..] {
        assert!(
            line.contains("SIGABRT") && line.contains("sometimes_crashes"),
            "{line}"
        );
    }
}
