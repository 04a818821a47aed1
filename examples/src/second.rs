//! The length of a second: the programs sleep for seconds, and tests shorten them.

use clap::Parser;
use std::time::Duration;

#[derive(Parser)]
struct Arguments {
    /// Number of seconds that a second of the program lasts.
    #[arg(long, value_name = "SECONDS", default_value = "1", value_parser = parse_seconds)]
    second: Duration,
}

/// Returns the length of a second from the command line: `--second 0.05` makes a program 20 times as fast.
/// Ends the program if there is anything else on the command line.
#[must_use]
pub fn from_command_line() -> Duration {
    Arguments::parse().second
}

/// Parses a number of seconds, for options of the command line.
///
/// # Errors
/// If it is no number, negative, or too large for a [`Duration`].
pub fn parse_seconds(text: &str) -> Result<Duration, String> {
    let seconds: f64 = text.parse().map_err(|_| String::from("not a number"))?;
    Duration::try_from_secs_f64(seconds).map_err(|error| error.to_string())
}
