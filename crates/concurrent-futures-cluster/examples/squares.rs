//! Squares numbers on the hosts of a cluster, and says which hosts there are.
//!
//! Without settings, the program starts a server and a host on this machine. `docs/cluster.md` runs the same program on
//! several machines.

#![allow(clippy::print_stdout, reason = "prints its results")]

use concurrent_futures::as_completed;
use concurrent_futures_cluster::ClusterExecutor;
use std::error::Error;

fn square(n: u64) -> u64 {
    n * n
}

fn main() -> Result<(), Box<dyn Error>> {
    // Hosts and worker processes begin here, and end here.
    concurrent_futures_cluster::init();

    let cluster = ClusterExecutor::builder().build()?;
    for host in cluster.hosts()? {
        println!(
            "a host on {} with {} workers",
            host.machine(),
            host.workers()
        );
    }

    // In the order of the items.
    let mut sum = 0;
    for square in cluster.map(square, 1..=1_000)? {
        sum += square?;
    }
    println!("the sum of 1,000 squares: {sum}");

    // In the order in which they are done.
    let futures: Result<Vec<_>, _> = (1..=4).map(|n| cluster.submit(square, n)).collect();
    for future in as_completed(futures?) {
        println!("a square: {}", future.result()?);
    }
    Ok(())
}
