//! Prints the part of a server's configuration that permits clients and hosts of a queue the subjects that they need.
//!
//! `cargo run -p concurrent-futures-cluster --example authorization -- QUEUE CLIENT HOST`, with the public parts of two
//! `NKeys`.

#![allow(clippy::print_stdout, reason = "prints its result")]

use concurrent_futures_cluster::authorization;
use std::env;
use std::error::Error;

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let [queue, client, host] = &*arguments else {
        return Err("give a queue, the public key of clients, and that of hosts".into());
    };
    print!("{}", authorization(queue, client, host)?);
    Ok(())
}
