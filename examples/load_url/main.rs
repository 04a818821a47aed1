//! Loads pages in parallel, and prints what became of each as soon as it is known.
//!
//! After the example with `as_completed` in the documentation of Python's `concurrent.futures`,
//! which the tutorials repeat. The pages come from this machine, and one of them is missing.

#![expect(clippy::print_stdout, reason = "a command-line program")]

use concurrent_futures::{ThreadPoolExecutor, as_completed};
use std::error::Error;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_mins(1);

fn load_url((url, timeout): (String, Duration)) -> Result<Vec<u8>, ureq::Error> {
    let request = ureq::get(url).config().proxy(None);
    let mut response = request.timeout_global(Some(timeout)).build().call()?;
    response.body_mut().read_to_vec()
}

fn main() -> Result<(), Box<dyn Error>> {
    let server = examples::pages::serve()?;
    let urls = ["/page/1", "/missing", "/page/3"].map(|path| server.url(path));

    let pool = ThreadPoolExecutor::builder().max_workers(3).build()?;
    let mut pages = Vec::new();
    for url in urls {
        let page = pool.submit_fallible(load_url, (url.clone(), TIMEOUT))?;
        // Each future goes with its URL.
        pages.push((url, page));
    }
    for (url, page) in as_completed(pages) {
        match page.result() {
            Ok(page) => println!("{url:?} page is {} bytes", page.len()),
            Err(error) => println!("{url:?} generated an exception: {error}"),
        }
    }
    Ok(())
}
