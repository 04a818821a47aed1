//! The entry of a host in the registry of its queue.

#![forbid(unsafe_code)]

use super::state::{Host, Settings};
use crate::bus::StoreKey;
use crate::log;
use crate::wire::{Figures, HostInfo, Kind, news_of};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::timeout;

impl Host {
    /// Keeps the host in the registry. Tells clients when it has entered, as some may wait for a host.
    ///
    /// Sends to `ready` after the first attempt: then a program that has started the host finds it in the registry. If
    /// the attempt has failed, the host runs all the same, and goes on trying.
    pub(super) async fn register(self: Arc<Self>, mut ready: Option<oneshot::Sender<()>>) {
        let store_key = StoreKey::Host {
            queue: self.settings.queue.clone(),
            name: self.name(),
        };
        let mut connections = self.bus.connections();
        let news = news_of(&self.settings.queue);
        let mut is_entry = true;
        loop {
            let content = self.entry();
            let kept = tokio::select! {
                kept = self.bus.keep(&store_key, content.clone()) => kept,
                // The message may have been lost with the connection.
                Ok(()) = connections.changed() => {
                    is_entry = true;
                    continue;
                }
            };
            if let Some(ready) = ready.take() {
                // A caller that no longer waits tells the host to stop.
                let _ = ready.send(());
            }
            let wait = match kept {
                Ok(_) => {
                    if is_entry && let Err(error) = self.bus.send(&news, content.clone()).await {
                        log::trouble("a host could not say that it is there", &error);
                    }
                    is_entry = false;
                    self.bus.lease() * 2 / 3
                }
                Err(error) => {
                    is_entry = true;
                    log::trouble("a host could not write itself into the registry", &error);
                    (self.bus.lease() / 10).min(Duration::from_secs(1))
                }
            };
            // A server that begins anew has no registry. Clients that wait read it after each new connection.
            is_entry |= timeout(wait, connections.changed()).await.is_ok();
        }
    }

    /// Returns the entry of the host in the registry, as of now.
    fn entry(&self) -> Bytes {
        let figures = {
            let state = self.lock();
            Figures {
                // The others wait for a worker.
                running: u32::try_from(state.running.min(self.slots(&state))).unwrap_or(u32::MAX),
                ended: state.done,
                failed: state.failed,
                returned: state.returned,
                pace: state.pace,
            }
        };
        let Settings { queue, seal, .. } = &self.settings;
        let info = HostInfo {
            id: self.id,
            queue: queue.clone(),
            environment: self.settings.environment.clone(),
            machine: self.settings.machine.clone(),
            pid: std::process::id(),
            workers: self.workers(),
            figures,
        };
        seal.seal(Kind::Host, queue.as_bytes(), &info)
    }
}
