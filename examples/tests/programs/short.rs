//! Tests of the short programs.

use crate::command::{Ended, run, succeed};
use examples::pages::page;
use std::collections::BTreeSet;
use std::fs;

/// A length of the second that is short enough for tests.
const FAST: [&str; 2] = ["--second", "0.02"];

/// Returns the place of a line; fails if it is not there once.
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
        .map(|factor| format!("{factor} times the sum: {}", factor * sum))
        .collect();
    let lines = ended.lines();
    assert_eq!(lines.len(), 33);
    assert_eq!(lines[..10], results);
    assert!(lines[10].starts_with("one after another: "));
    assert_eq!(lines[11..21], results);
    assert!(lines[21].starts_with("5 threads: "));
    assert_eq!(lines[22..32], results);
    assert!(lines[32].starts_with("5 processes: "));
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
    for (line, word) in lines.iter().zip(["hello", "world"]) {
        let done = line.strip_prefix(&format!("{word} is done: ")).unwrap();
        assert!(["false", "true"].contains(&done));
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
    let lines = ended.lines();
    let lines = sorted(&lines);
    let [missing, first, third] = lines[..] else {
        panic!("{lines:#?}");
    };
    assert!(missing.starts_with("/missing failed: "), "{missing}");
    assert!(missing.contains("404"), "{missing}");
    assert_eq!([first, third], [1, 3].map(page_line));
}

fn page_line(number: usize) -> String {
    format!("/page/{number} has {} bytes", page(number).len())
}

#[test]
fn map_urls_prints_sizes_in_order() {
    let ended = succeed(env!("CARGO_BIN_EXE_map_urls"), [""; 0]);
    assert_eq!(ended.lines(), [1, 2, 3].map(page_line));
}

#[test]
fn submit_many_prints_each_address_twice() {
    let arguments = ["200", "--second=0"];
    let ended = succeed(env!("CARGO_BIN_EXE_submit_many"), arguments);
    let lines = ended.lines();
    let addresses = (0..200).map(|number| format!("http://127.0.0.1/list?from={number}"));
    let addresses: Vec<_> = addresses.collect();
    let addresses: Vec<_> = addresses.iter().map(String::as_str).collect();
    assert_eq!(sorted(&lines[..200]), sorted(&addresses));
    assert!(lines[200].starts_with("ThreadPoolExecutor: "));
    assert_eq!(sorted(&lines[201..401]), sorted(&addresses));
    assert!(lines[401].starts_with("ProcessPoolExecutor: "));
    assert_eq!(lines.len(), 402);
}

#[test]
fn squares_are_the_same_with_threads_processes_and_map() {
    let own = "--second=0.005";
    for (arguments, most) in [
        (&[own][..], 3),
        (&[own, "--map"], 3),
        (&[own, "--threads"], 1),
        (&[own, "--threads", "--map"], 1),
    ] {
        let ended = succeed(env!("CARGO_BIN_EXE_squares"), arguments);
        let lines = ended.lines();
        let tasks = lines[..11].iter().map(|line| {
            let (process, number) = line.split_once(" squares ").unwrap();
            (number.parse::<u32>().unwrap(), process)
        });
        let (numbers, processes): (BTreeSet<u32>, BTreeSet<&str>) = tasks.unzip();
        assert_eq!(numbers, (0..11).collect());
        assert!(processes.len() <= most, "{processes:?}");
        assert_eq!(lines[11], "the pool is shut down");
        let squares = (0..11).map(|number| (number * number).to_string());
        assert_eq!(lines[12..], squares.collect::<Vec<_>>());
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
    let middle = position(&lines, "as_completed:");
    let (map, as_completed) = (&lines[1..middle], &lines[middle + 1..]);

    assert_eq!(lines[0], "map:");
    let arrivals = map.iter().filter(|line| line.starts_with("arrival"));
    assert!(arrivals.eq(&["arrival of 3 s", "arrival of 1 s", "arrival of 2 s"]));

    for section in [map, as_completed] {
        assert_eq!(section.len(), 6);
        for seconds in 1..=3 {
            let end = position(section, &format!("end of {seconds} s"));
            assert!(end < position(section, &format!("arrival of {seconds} s")));
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

    assert_eq!(texts.len(), 2 + 6 * 3);
    assert_eq!(texts[0], "submit");
    let mut before = position(&texts, "all submitted");
    for number in 0..6 {
        let start = position(&texts, &format!("task {number} sleeps"));
        let end = position(&texts, &format!("task {number} ends"));
        let result = position(&texts, &format!("result {number} is {}", number * 10));
        assert!(start < end && end < result && before < result);
        before = result;
    }
}

#[test]
fn primes_tells_the_primes() {
    let ended = succeed(env!("CARGO_BIN_EXE_primes"), [""; 0]);
    let expected = [
        "112272535095293 is prime",
        "112582705942171 is prime",
        "112272535095293 is prime",
        "115280095190773 is prime",
        "115797848077099 is prime",
        "1099726899285419 is a multiple of 3306091",
    ];
    assert_eq!(ended.lines(), expected);
}

#[test]
fn shutdown_finishes_the_tasks_with_and_without_waiting() {
    let ended = succeed(env!("CARGO_BIN_EXE_shutdown"), FAST);
    let lines = ended.lines();
    let runs: Vec<_> = (0..5).map(|n| format!("task {n} runs")).collect();

    let middle = position(&lines, "without waiting:");
    let waited = &lines[..middle];
    assert_eq!(waited[0], "with waiting:");
    assert_eq!(sorted(&waited[1..6]), runs);
    // Three rounds, for there are two workers.
    assert!(duration(waited[6]) >= 3.0 * 0.02);
    assert_eq!(waited.len(), 7);

    let mut after = lines[middle + 1..].to_vec();
    assert_eq!(after.len(), 6);
    after.retain(|line| !line.starts_with("shutdown took "));
    assert_eq!(sorted(&after), runs);
}

fn duration(line: &str) -> f64 {
    let seconds = line.strip_prefix("shutdown took ").unwrap();
    seconds.strip_suffix(" s").unwrap().parse().unwrap()
}

#[test]
fn first_completed_divides_done_and_not_done() {
    let ended = succeed(env!("CARGO_BIN_EXE_first_completed"), FAST);
    let lines = ended.lines();
    let place = |start: &str| lines.iter().position(|line| line.starts_with(start));
    assert!(place("end of ").unwrap() < place("done: ").unwrap());

    let starting = |start: &str| -> Vec<&str> {
        let found = lines.iter().filter(|line| line.starts_with(start));
        found.copied().collect()
    };
    let done = starting("done: ");
    assert!(done.iter().all(|line| line.contains("state=finished")));
    assert_eq!(done.len() + starting("not done: <Future").len(), 3);
    let ends = starting("end of ");
    assert_eq!(sorted(&ends), ["end of 1 s", "end of 2 s", "end of 3 s"]);
    assert_eq!(lines.len(), 6);
}

#[test]
fn callbacks_append_a_line_for_each_page() {
    assert_callbacks_append(&[], true);
}

#[test]
fn callbacks_run_in_the_own_process_for_worker_processes_too() {
    assert_callbacks_append(&["--processes"], false);
}

#[track_caller]
fn assert_callbacks_append(options: &[&str], same_process: bool) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pages.txt");
    fs::write(&file, "an older line\n").unwrap();
    let arguments = [file.to_str().unwrap()]
        .into_iter()
        .chain(options.iter().copied());
    let ended = succeed(env!("CARGO_BIN_EXE_callbacks"), arguments);

    let lines = ended.lines();
    assert_eq!(lines.len(), 10);
    let written = fs::read_to_string(&file).unwrap();
    let written: Vec<_> = written.lines().collect();
    assert_eq!((written.len(), written[0]), (6, "an older line"));
    for number in 1..=5 {
        let end = format!("/page/{number}");
        let find = |what: &str| {
            let mut lines = lines.iter().enumerate();
            let found = lines.find(|(_, line)| line.contains(what) && line.ends_with(&end));
            let (at, line) = found.unwrap();
            (at, line.split_once(what).unwrap().0)
        };
        let (loads, records) = (find(" loads "), find(" records "));
        assert!(loads.0 < records.0);
        assert_eq!(loads.1 == records.1, same_process);
        let end = format!("{end} has {} characters", page(number).len());
        let found = written.iter().filter(|line| line.ends_with(&end));
        assert_eq!(found.count(), 1);
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
