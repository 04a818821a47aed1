//! A site of pages, for the programs that load and parse some.

use crate::server::{Reply, Server};
use hyper::StatusCode;
use std::io;
use std::time::Duration;

const TIMEOUT: Duration = Duration::from_mins(1);

/// Starts a server that has the pages `/page/1` to `/page/9`, each larger than the one before.
///
/// # Errors
/// If the system gives no port or no thread.
pub fn serve() -> io::Result<Server> {
    Server::start(|path| {
        let number = path.strip_prefix("/page/").map(str::parse);
        match number {
            Some(Ok(number @ 1..=9)) => Reply::ok("text/html", page(number)),
            _ => Reply::status(StatusCode::NOT_FOUND),
        }
    })
}

/// Loads a page.
///
/// # Errors
/// If the server cannot be reached, or answers with an error.
pub fn load(url: String) -> Result<String, ureq::Error> {
    let request = ureq::get(url).config().proxy(None);
    let request = request.timeout_global(Some(TIMEOUT)).build();
    request.call()?.body_mut().read_to_string()
}

/// Returns the text of a page.
#[must_use]
pub fn page(number: usize) -> String {
    let paragraphs = "<p>A page grows with its number.</p>\n".repeat(number);
    format!("<!doctype html>\n<title>Page {number}</title>\n{paragraphs}")
}
