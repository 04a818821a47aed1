//! (l) Worker processes: against procspawn's pool, and the floors of the machine.

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use std::{env, hint, io, thread};

use concurrent_futures::{
    Future, MapOptions, ProcessPoolExecutor, StartMethod, TaskError, ThreadPoolExecutor,
};

use crate::command_line::Settings;
use crate::harness::{Contestant, Sample, measure, milliseconds, nanoseconds_each};
use crate::report::figure;
use crate::section::{Section, Table, Target};

const WORKERS: usize = 2;
const MEGABYTE: usize = 1 << 20;
const OURS: &str = "concurrent-futures";
const PEER: &str = "procspawn Pool";

pub(crate) fn run(settings: &Settings) -> Section {
    let parts = [
        no_ops(settings),
        round_trip(settings),
        map(settings),
        echo(settings),
        start(settings),
        recovery(settings),
        speed_up(settings),
        submitters(settings),
    ];
    let (tables, targets): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
    let section = Section::shown(
        "Worker processes",
        "Two workers each. procspawn holds at most 200 tasks at once: submitting more waits. The floors are measured in the \
         same rounds, between this process and a child of it.",
        tables,
    );
    Section {
        targets: targets.into_iter().flatten().collect(),
        ..section
    }
}

type Part = (Table, Vec<Target>);

fn pool() -> ProcessPoolExecutor {
    let pool = ProcessPoolExecutor::builder().max_workers(WORKERS).build();
    let pool = pool.expect("the system starts a thread");
    // Warm: both workers are there.
    let pause = |()| thread::sleep(Duration::from_millis(5));
    let warm: Vec<_> = (0..WORKERS).map(|_| pool.submit(pause, ())).collect();
    for future in warm {
        take(future.expect("the pool is open"));
    }
    pool
}

fn take<T>(future: Future<T>) -> T {
    future.result().expect("the task does not fail")
}

fn peer() -> procspawn::Pool {
    let pool = procspawn::Pool::new(WORKERS).expect("the system starts processes");
    for _ in 0..10 {
        join(pool.spawn(1_u64, identity));
    }
    pool
}

fn join<T: serde::Serialize + serde::de::DeserializeOwned>(handle: procspawn::JoinHandle<T>) -> T {
    handle.join().expect("the task does not fail")
}

fn identity(n: u64) -> u64 {
    n
}

fn row(table: &Table, name: &str, column: usize) -> f64 {
    let row = table.rows.iter().find(|row| row.name == name);
    row.expect("a row of that name").figures[column].median
}

fn no_ops(settings: &Settings) -> Part {
    let tasks = settings.size(100_000, 2_000);
    let ours = move || {
        let pool = pool();
        let start = Instant::now();
        let futures: Vec<_> = (0..tasks as u64)
            .map(|n| pool.submit(identity, n))
            .collect();
        for future in futures {
            take(future.expect("the pool is open"));
        }
        vec![nanoseconds_each(start.elapsed(), tasks) / 1e3]
    };
    // At most 200 are in flight: the others are submitted as results are taken.
    let theirs = move || {
        let (pool, tasks) = (peer(), tasks.min(10_000));
        let start = Instant::now();
        let mut handles = std::collections::VecDeque::new();
        for n in 0..tasks as u64 {
            if handles.len() == 200 {
                handles.pop_front().map(join);
            }
            handles.push_back(pool.spawn(n, identity));
        }
        for handle in handles {
            join(handle);
        }
        vec![nanoseconds_each(start.elapsed(), tasks) / 1e3]
    };
    let contestants = vec![Contestant::ours(OURS, ours), Contestant::peer(PEER, theirs)];
    let table = Table::new(&["µs per task"], measure(settings.rounds, contestants)).caption(
        format!("**(a)** {tasks} no-ops submitted, then all results."),
    );
    let (ours, theirs) = (row(&table, OURS, 0), row(&table, PEER, 0));
    let targets = vec![
        Target::at_most(
            "(a) at most 2 µs a task",
            ours,
            2.0,
            format!("{ours:.2} µs"),
        ),
        Target::at_most(
            "(a) at least 20 times procspawn",
            ours * 20.0,
            theirs,
            format!("× {:.0}", theirs / ours),
        ),
    ];
    (table, targets)
}

fn round_trip(settings: &Settings) -> Part {
    let trips = settings.size(20_000, 500);
    let ours = move || {
        let pool = pool();
        let start = Instant::now();
        for n in 0..trips as u64 {
            take(pool.submit(identity, n).expect("the pool is open"));
        }
        vec![nanoseconds_each(start.elapsed(), trips) / 1e3]
    };
    let theirs = move || {
        let (pool, trips) = (peer(), trips.min(5_000));
        let start = Instant::now();
        for n in 0..trips as u64 {
            join(pool.spawn(n, identity));
        }
        vec![nanoseconds_each(start.elapsed(), trips) / 1e3]
    };
    let contestants = vec![
        Contestant::ours(OURS, ours),
        Contestant::peer(PEER, theirs),
        Contestant::shown("the floor: a byte through two pipes", move || {
            ping_pong(trips)
        }),
    ];
    let table = Table::new(
        &["µs per round trip"],
        measure(settings.rounds, contestants),
    )
    .caption("**(b)** Round trip, one at a time.");
    let (ours, floor) = (row(&table, OURS, 0), table.rows[2].figures[0].median);
    let target = Target::at_most(
        "(b) at most 1.5 times the pipe ping-pong",
        ours,
        1.5 * floor,
        format!("{} µs, × {:.2}", figure(ours), ours / floor),
    );
    (table, vec![target])
}

fn map(settings: &Settings) -> Part {
    let items = settings.size(200_000, 5_000);
    let run = move |chunksize| {
        move || {
            let pool = pool();
            let start = Instant::now();
            let options = MapOptions::new().chunksize(chunksize);
            let results = pool.map_with(options, identity, 0..items as u64);
            for result in results.expect("the pool is open") {
                result.expect("the task does not fail");
            }
            vec![nanoseconds_each(start.elapsed(), items)]
        }
    };
    let contestants = vec![
        Contestant::ours("chunksize chosen by the pool", run(0)),
        Contestant::shown("chunksize 1", run(1)),
        Contestant::shown("chunksize 100", run(100)),
        Contestant::shown("chunksize 10,000", run(10_000)),
    ];
    let table = Table::new(&["ns per item"], measure(settings.rounds, contestants))
        .caption(format!("**(c)** `map` of a no-op over {items} items."));
    (table, Vec::new())
}

fn echo(settings: &Settings) -> Part {
    let sizes = [MEGABYTE, settings.size(64, 8) * MEGABYTE];
    let best = |repeat: usize, run: &mut dyn FnMut() -> Duration| {
        (0..repeat).map(|_| run()).min().map_or(0.0, milliseconds)
    };
    let ours = move || {
        let pool = pool();
        let sample = sizes.map(|size| {
            best(5, &mut || {
                let bytes = vec![7_u8; size];
                let start = Instant::now();
                let back = pool.submit(|bytes: Vec<u8>| bytes, bytes);
                let back = take(back.expect("the pool is open"));
                let elapsed = start.elapsed();
                assert_eq!(back.len(), size, "all comes back");
                elapsed
            })
        });
        sample.to_vec()
    };
    let theirs = move || {
        let pool = peer();
        let sample = sizes.map(|size| {
            best(2, &mut || {
                let bytes = serde_bytes::ByteBuf::from(vec![7_u8; size]);
                let start = Instant::now();
                join(pool.spawn(bytes, |bytes: serde_bytes::ByteBuf| bytes));
                start.elapsed()
            })
        });
        sample.to_vec()
    };
    let contestants = vec![
        Contestant::ours(OURS, ours),
        Contestant::peer(PEER, theirs),
        Contestant::shown(
            "the floor: a socketpair, into a new buffer each time",
            move || {
                let (mut here, _child) = echo_child(sizes[1]);
                let sample = sizes.map(|size| {
                    best(5, &mut || {
                        let bytes = vec![7_u8; size];
                        let start = Instant::now();
                        stream_echo(&mut here, &bytes).expect("the child answers");
                        start.elapsed()
                    })
                });
                sample.to_vec()
            },
        ),
        Contestant::shown("memcpy, four times", move || {
            let sample = sizes.map(|size| {
                let (from, mut to) = (vec![7_u8; size], vec![0_u8; size]);
                best(5, &mut || {
                    let start = Instant::now();
                    for _ in 0..4 {
                        to.copy_from_slice(hint::black_box(&from));
                        hint::black_box(&to);
                    }
                    start.elapsed()
                })
            });
            sample.to_vec()
        }),
    ];
    let large = format!("{} MB, ms", sizes[1] / MEGABYTE);
    let table = Table::new(&["1 MB, ms", &large], measure(settings.rounds, contestants))
        .caption("**(d)** Echo of a `Vec<u8>`, there and back; the best of a few.");
    let targets = [0, 1].map(|column| {
        let (ours, floor) = (
            row(&table, OURS, column),
            table.rows[2].figures[column].median,
        );
        Target::at_most(
            format!(
                "(d) {}: at least as fast as a socketpair",
                table.columns[column]
            ),
            ours,
            floor,
            format!("{} ms against {} ms", figure(ours), figure(floor)),
        )
    });
    (table, targets.into())
}

fn start(settings: &Settings) -> Part {
    let run = |method| {
        move || {
            let start = Instant::now();
            let builder = ProcessPoolExecutor::builder().max_workers(WORKERS);
            let pool = builder.start_method(method).build();
            let pool = pool.expect("the system starts a thread");
            let futures = [1, 2].map(|n| pool.submit(identity, n).expect("the pool is open"));
            for future in futures {
                take(future);
            }
            let first = milliseconds(start.elapsed());
            drop(pool);
            vec![first, milliseconds(start.elapsed())]
        }
    };
    let theirs = || {
        let start = Instant::now();
        let pool = procspawn::Pool::new(WORKERS).expect("the system starts processes");
        let handles = [1, 2].map(|n| pool.spawn(n, identity));
        for handle in handles {
            join(handle);
        }
        let first = milliseconds(start.elapsed());
        drop(pool);
        vec![first, milliseconds(start.elapsed())]
    };
    let contestants = vec![
        Contestant::ours("spawn", run(StartMethod::Spawn)),
        Contestant::shown("fork server", run(StartMethod::ForkServer)),
        Contestant::peer(PEER, theirs),
    ];
    let table = Table::new(
        &["to two results, ms", "to the end, ms"],
        measure(settings.rounds.max(5), contestants),
    )
    .caption("**(e)** Start of a pool of two workers, which is this program.");
    let ours = row(&table, "spawn", 0);
    let target = Target::at_most("(e) at most 5 ms", ours, 5.0, format!("{ours:.1} ms"));
    (table, vec![target])
}

fn recovery(settings: &Settings) -> Part {
    fn sometimes(n: u32) -> u32 {
        if n % 40 == 7 {
            // Not `abort`, which may write a core dump.
            std::process::exit(1);
        }
        n
    }
    let run = |method| {
        move || {
            let builder = ProcessPoolExecutor::builder().max_workers(WORKERS);
            let pool = builder.start_method(method).build();
            let pool = pool.expect("the system starts a thread");
            take(pool.submit(identity, 1).expect("the pool is open"));
            let start = Instant::now();
            let futures: Vec<_> = (0..200).map(|n| pool.submit(sometimes, n)).collect();
            let mut results = 0.0;
            for future in futures {
                match future.expect("the pool is open").result() {
                    Ok(_) => results += 1.0,
                    Err(TaskError::WorkerDied(_)) => {}
                    Err(other) => panic!("{other}"),
                }
            }
            vec![milliseconds(start.elapsed()), results]
        }
    };
    let contestants = vec![
        Contestant::ours("spawn", run(StartMethod::Spawn)),
        Contestant::shown("fork server", run(StartMethod::ForkServer)),
    ];
    let table = Table::new(&["ms", "results"], measure(settings.rounds, contestants))
        .ratio(None)
        .caption("**(f)** 200 tasks, of which five end their worker.");
    let results = row(&table, "spawn", 1);
    let target = Target {
        promise: "(f) 195 results".to_owned(),
        measured: format!("{results}"),
        met: (results - 195.0).abs() < 0.5,
    };
    (table, vec![target])
}

fn speed_up(settings: &Settings) -> Part {
    fn count_primes(range: (u64, u64)) -> u64 {
        let is_prime = |n: &u64| (2..=n.isqrt()).all(|d| !n.is_multiple_of(d));
        (range.0..range.1).filter(is_prime).count() as u64
    }
    let last = settings.size(1_500_000, 100_000) as u64;
    let pieces = move || (0..40).map(move |n| (last / 40 * n, last / 40 * (n + 1)));
    let sequential = move || timed(|| drop(pieces().map(count_primes).collect::<Vec<_>>()));
    let threads = move || {
        let pool = ThreadPoolExecutor::builder().max_workers(WORKERS).build();
        let pool = pool.expect("two is a number");
        timed(|| {
            let counts = pool.map(count_primes, pieces()).expect("the pool is open");
            counts.for_each(drop);
        })
    };
    let processes = move || {
        let pool = pool();
        timed(|| {
            let counts = pool.map(count_primes, pieces()).expect("the pool is open");
            counts.for_each(drop);
        })
    };
    let contestants = vec![
        Contestant::ours(OURS, processes),
        Contestant::shown("two threads", threads),
        Contestant::shown("one after another", sequential),
    ];
    let table = Table::new(&["ms"], measure(settings.rounds, contestants))
        .caption("**(g)** Counting primes in 40 tasks.");
    let factor = table.rows[2].figures[0].median / row(&table, OURS, 0);
    let target = Target {
        promise: "(g) at least 1.9 times as fast on two free cores".to_owned(),
        measured: format!("× {factor:.2}"),
        met: factor >= 1.9,
    };
    (table, vec![target])
}

fn timed(f: impl FnOnce()) -> Sample {
    let start = Instant::now();
    f();
    vec![milliseconds(start.elapsed())]
}

fn submitters(settings: &Settings) -> Part {
    const THREADS: usize = 8;
    let tasks = settings.size(10_000, 200);
    let ours = move || {
        let pool = pool();
        let start = Instant::now();
        thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    let futures: Vec<_> = (0..tasks as u64)
                        .map(|n| pool.submit(identity, n))
                        .collect();
                    for future in futures {
                        take(future.expect("the pool is open"));
                    }
                });
            }
        });
        vec![nanoseconds_each(start.elapsed(), THREADS * tasks) / 1e3]
    };
    let contestants = vec![Contestant::ours(OURS, ours)];
    let table = Table::new(&["µs per task"], measure(settings.rounds, contestants)).caption(
        format!("**(h)** Eight threads submit {tasks} no-ops each, then take the results."),
    );
    (table, Vec::new())
}

/// Starts this program as the other side of a floor.
fn floor_child(what: &str, size: usize, stdin: Stdio, stdout: Stdio) -> Ended {
    let program = env::current_exe().expect("a program knows its file");
    let child = Command::new(program)
        .args(["floor", what, &size.to_string()])
        .stdin(stdin)
        .stdout(stdout)
        .spawn();
    Ended(child.expect("the child process starts"))
}

/// Waits for a child.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn ping_pong(trips: usize) -> Sample {
    let (theirs, mut ours): (PipeReader, PipeWriter) = io::pipe().expect("a pipe");
    let (mut back, their_back) = io::pipe().expect("a pipe");
    let _child = floor_child("pipe", 1, theirs.into(), their_back.into());
    let mut trip = || {
        ours.write_all(&[1]).expect("the child reads");
        back.read_exact(&mut [0]).expect("the child answers");
    };
    (0..100).for_each(|_| trip());
    let start = Instant::now();
    (0..trips).for_each(|_| trip());
    vec![nanoseconds_each(start.elapsed(), trips) / 1e3]
}

fn echo_child(size: usize) -> (UnixStream, Ended) {
    let (ours, theirs) = UnixStream::pair().expect("a socketpair");
    let back = theirs.try_clone().expect("a descriptor");
    let (stdin, stdout) = (
        std::os::fd::OwnedFd::from(theirs),
        std::os::fd::OwnedFd::from(back),
    );
    (
        ours,
        floor_child("socket", size, stdin.into(), stdout.into()),
    )
}

/// Sends bytes with their length, and takes as many.
fn stream_echo(stream: &mut UnixStream, bytes: &[u8]) -> io::Result<Vec<u8>> {
    stream.write_all(&(bytes.len() as u64).to_ne_bytes())?;
    stream.write_all(bytes)?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back)?;
    Ok(back)
}

/// The child's part of a floor.
pub(crate) fn floor(what: &str) {
    let (mut input, mut output) = (io::stdin().lock(), io::stdout().lock());
    let answer = || -> io::Result<()> {
        loop {
            if what == "pipe" {
                let mut byte = [0];
                input.read_exact(&mut byte)?;
                output.write_all(&byte)?;
                output.flush()?;
                continue;
            }
            let mut length = [0; 8];
            input.read_exact(&mut length)?;
            let length = usize::try_from(u64::from_ne_bytes(length)).unwrap_or(0);
            let mut bytes = vec![0; length];
            input.read_exact(&mut bytes)?;
            output.write_all(&bytes)?;
            output.flush()?;
        }
    };
    // The other side has had enough.
    let mut answer = answer;
    let _ = answer();
}
