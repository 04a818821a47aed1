//! Tells which of some large numbers are prime, on all processors.
//!
//! After the example with `map` and processes in the documentation of Python's `concurrent.futures`, which
//! the tutorials repeat.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ProcessPoolExecutor;
use std::error::Error;

const PRIMES: [u64; 6] = [
    112_272_535_095_293,
    112_582_705_942_171,
    112_272_535_095_293,
    115_280_095_190_773,
    115_797_848_077_099,
    1_099_726_899_285_419,
];

fn is_prime(n: u64) -> bool {
    if n < 2 || n.is_multiple_of(2) {
        return n == 2;
    }
    let mut odd = (3..=n.isqrt()).step_by(2);
    !odd.any(|divisor| n.is_multiple_of(divisor))
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here

    let pool = ProcessPoolExecutor::new()?;
    for (n, prime) in PRIMES.iter().zip(pool.map(is_prime, PRIMES)?) {
        println!("{n} is prime: {}", prime?);
    }
    Ok(())
}
