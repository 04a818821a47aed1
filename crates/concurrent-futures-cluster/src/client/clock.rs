//! The server's clock, as the client knows it.
//!
//! A host asks the client about a parcel that is old. Its age is the difference of two times: when the client sent it, and
//! when the server got it. No other party can change the first one, as it is in the message. Both are of the server's
//! clock. So the clocks of clients and hosts may be wrong by any time, and nothing reads them.
//!
//! The client asks the server for the time before its first task, and after each new connection. It asks again when a
//! host asks about a parcel, as the server may have another clock since. In between it counts on. Its error is at most
//! the time that the answer took.

#![forbid(unsafe_code)]

use super::Client;
use crate::log;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// The pause between two measurements, at least.
const PAUSE: Duration = Duration::from_secs(10);

/// A time of the server's clock.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reading {
    /// When the clock showed the time, about.
    at: Instant,
    /// In milliseconds since 1970.
    time: u64,
}

impl Reading {
    /// Returns the time of the server's clock now.
    fn now(self) -> u64 {
        let since = u64::try_from(self.at.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.time.saturating_add(since)
    }
}

impl Client {
    /// Returns the time of the server's clock, in milliseconds since 1970. Zero if it is not known: hosts ask about what
    /// was sent then.
    pub(super) fn server_time(&self) -> u64 {
        let reading = self.lock().reading;
        reading.map_or(0, Reading::now)
    }

    /// Asks the server for the time.
    pub(super) async fn read_clock(&self) {
        let asked = Instant::now();
        match self.bus.time(&self.lane).await {
            Ok(time) => {
                let at = asked + asked.elapsed() / 2;
                self.lock().reading = Some(Reading { at, time });
            }
            Err(error) => log::trouble("the server does not tell the time", &error),
        }
    }

    /// Reads the server's clock again whenever the time may have changed.
    pub(super) async fn keep_time(self: Arc<Self>) {
        let mut connections = self.bus.connections();
        connections.mark_unchanged();
        loop {
            tokio::select! {
                () = self.is_doubted.notified() => {}
                // The sender is part of the connection.
                _ = connections.changed() => {}
            }
            self.read_clock().await;
            sleep(PAUSE).await;
        }
    }
}
