//! The server's clock, as a client or a host knows it.
//!
//! A host asks the client about a parcel that is old. Its age is the difference of two times: when the client sent it, and
//! when the server got it. No other party can change the first one, as it is in the message. Both are of the server's
//! clock. So the clocks of clients and hosts may be wrong by any time, and nothing reads them.
//!
//! A party asks the server for the time before its first task, and after each new connection. It asks again when a parcel
//! seems to be old, as the server may have another clock since. In between it counts on. Its error is at most the time
//! that the answer took.

#![forbid(unsafe_code)]

use crate::bus::{Bus, Lane};
use crate::log;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

/// The pause between two measurements, at least.
const PAUSE: Duration = Duration::from_secs(10);

/// The server's clock.
#[derive(Default)]
pub(crate) struct Clock {
    /// The last time of the clock.
    reading: Mutex<Option<Reading>>,
    /// Notified when the clock may show another time than the party believes.
    is_doubted: Notify,
}

/// A time of the server's clock.
#[derive(Clone, Copy, Debug)]
struct Reading {
    /// When the clock showed the time, about.
    at: Instant,
    /// In milliseconds since 1970.
    time: u64,
}

impl Clock {
    /// Returns the time now, in milliseconds since 1970. Zero if it is not known.
    pub(crate) fn now(&self) -> u64 {
        let reading = *self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        reading.map_or(0, |reading| {
            let since = reading.at.elapsed().as_millis();
            let since = u64::try_from(since).unwrap_or(u64::MAX);
            reading.time.saturating_add(since)
        })
    }

    /// Asks the server for the time.
    pub(crate) async fn read(&self, bus: &dyn Bus, lane: &Lane) {
        let asked = Instant::now();
        match bus.time(lane).await {
            Ok(time) => {
                let at = asked + asked.elapsed() / 2;
                let mut reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
                *reading = Some(Reading { at, time });
            }
            Err(error) => log::trouble("the server does not tell the time", &error),
        }
    }

    /// Lets [`keep`](Self::keep) read the clock again.
    pub(crate) fn doubt(&self) {
        self.is_doubted.notify_one();
    }

    /// Reads the clock again whenever the time may have changed.
    pub(crate) async fn keep(&self, bus: &dyn Bus, lane: &Lane) {
        let mut connections = bus.connections();
        connections.mark_unchanged();
        loop {
            tokio::select! {
                () = self.is_doubted.notified() => {}
                // The sender is part of the connection.
                _ = connections.changed() => {}
            }
            self.read(bus, lane).await;
            sleep(PAUSE).await;
        }
    }
}
