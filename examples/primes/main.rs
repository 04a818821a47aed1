//! Tells which of some large numbers are prime, with a process for each processor.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::ProcessPoolExecutor;
use std::error::Error;

const NUMBERS: [u64; 6] = [
    112_272_535_095_293,
    112_582_705_942_171,
    112_272_535_095_293,
    115_280_095_190_773,
    115_797_848_077_099,
    1_099_726_899_285_419,
];

/// Returns the smallest divisor above 1, which is the number itself if it is prime.
fn smallest_divisor(number: u64) -> u64 {
    if number.is_multiple_of(2) {
        return 2;
    }
    let mut odd = (3..=number.isqrt()).step_by(2);
    odd.find(|&divisor| number.is_multiple_of(divisor))
        .unwrap_or(number)
}

fn main() -> Result<(), Box<dyn Error>> {
    concurrent_futures::init(); // worker processes begin here

    let pool = ProcessPoolExecutor::new()?;
    for (number, divisor) in NUMBERS.iter().zip(pool.map(smallest_divisor, NUMBERS)?) {
        match divisor? {
            divisor if divisor == *number => println!("{number} is prime"),
            divisor => println!("{number} is a multiple of {divisor}"),
        }
    }
    Ok(())
}
