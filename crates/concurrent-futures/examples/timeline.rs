//! Records two pools at work, and saves a trace for <https://ui.perfetto.dev>.
//!
//! ```sh
//! cargo run --release -p concurrent-futures --example timeline -- trace.json
//! ```

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{Recording, ThreadPoolExecutor, with_label};
use std::error::Error;
use std::thread::sleep;
use std::time::Duration;

fn load(page: u64) -> u64 {
    sleep(Duration::from_millis(5 + page % 7));
    page
}

fn is_prime(n: u64) -> bool {
    n > 1 && (2..=n.isqrt()).all(|d| !n.is_multiple_of(d))
}

fn main() -> Result<(), Box<dyn Error>> {
    let path = std::env::args().nth(1);
    let path = path.unwrap_or_else(|| "trace.json".to_owned());
    let recording = Recording::start();
    let pages = ThreadPoolExecutor::builder()
        .max_workers(8)
        .thread_name_prefix("pages")
        .build()?;
    let primes = ThreadPoolExecutor::builder()
        .thread_name_prefix("primes")
        .build()?;
    let loads = pages.map(load, 0..40)?;
    let first = with_label("the first prime", || {
        primes.submit(is_prime, 112_272_535_095_293)
    })?;
    let counts = primes.map(is_prime, 1_000_000_000_000_u64..1_000_000_000_100)?;
    let count = counts.filter(|prime| matches!(prime, Ok(true))).count();
    let loaded = loads.collect::<Result<Vec<_>, _>>()?.len();
    println!(
        "{loaded} pages, {count} primes; the first number is prime: {}",
        first.result()?
    );
    recording.stop();
    recording.save(&path)?;
    println!("{path}: open it at https://ui.perfetto.dev");
    Ok(())
}
