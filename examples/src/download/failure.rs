//! The reasons why a URL could not be downloaded.

use concurrent_futures::TaskError;
use std::io;
use ureq::http::StatusCode;

/// The reason why a URL could not be downloaded.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Failure {
    /// The line is no text.
    #[error("not UTF-8")]
    NotUtf8,
    /// The line is no URL.
    #[error("not a URL: {0}")]
    InvalidUrl(#[from] url::ParseError),
    /// The URL is not the address of a web page.
    #[error("neither http nor https, but {0}")]
    Scheme(String),
    /// The server answered with an error.
    #[error("{0}")]
    Status(StatusCode),
    /// The body was shorter than the server had announced.
    #[error("broke off after {received} of {expected} bytes")]
    BrokeOff {
        /// Number of bytes that came.
        received: u64,
        /// The `Content-Length`.
        expected: u64,
    },
    /// No answer, or an answer that is no HTTP.
    #[error(transparent)]
    Request(#[from] ureq::Error),
    /// The file could not be written.
    #[error("cannot write the file: {0}")]
    Write(#[source] io::Error),
    /// Ctrl-C was pressed meanwhile.
    #[error("interrupted")]
    Interrupted,
    /// The task itself failed.
    #[error(transparent)]
    Task(#[from] TaskError),
}

impl Failure {
    /// Returns whether another attempt may succeed.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Status(status) => {
                status.is_server_error()
                    || [StatusCode::REQUEST_TIMEOUT, StatusCode::TOO_MANY_REQUESTS].contains(status)
            }
            Self::BrokeOff { .. } => true,
            Self::Request(error) => matches!(
                error,
                ureq::Error::Io(_) | ureq::Error::Timeout(_) | ureq::Error::ConnectionFailed
            ),
            _ => false,
        }
    }
}
