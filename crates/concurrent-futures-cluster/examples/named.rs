//! A host whose functions have names: programs of other builds call them by `submit_named`.
//!
//! Start it with `CONCURRENT_FUTURES_WORKER=nats://127.0.0.1:4222 CONCURRENT_FUTURES_BY_NAME=1`.

#![allow(clippy::print_stdout, reason = "says how it is used")]

fn area((width, height): (u32, u32)) -> u32 {
    width * height
}

#[allow(clippy::needless_pass_by_value, reason = "a task owns its argument")]
fn greet(name: String) -> String {
    format!("Hello, {name}!")
}

fn main() {
    concurrent_futures_cluster::register!("area", area);
    concurrent_futures_cluster::register!("greet", greet);
    concurrent_futures_cluster::init();
    println!("set CONCURRENT_FUTURES_WORKER to the address of a server");
}
