//! The embedded mode: a server and a host that belong to one executor.

#![forbid(unsafe_code)]

use super::ExecutorSettings;
use crate::access::Door;
use crate::builder::ClusterBuilder;
use crate::error::ClusterError;
use crate::server::Server;
use crate::wire::{hex, random};
use crate::worker::{ClusterHost, Serving};
use std::time::Duration;

/// The address that stands for a server and a host of this process.
pub(super) const EMBEDDED: &str = "embedded";

/// The server and the host of an executor.
pub(super) struct Embedded {
    /// None if the host is another program.
    host: Option<Serving>,
    pub(super) server: Server,
}

impl Embedded {
    /// Starts a server and a host. Gives the settings the way to them.
    pub(super) async fn start(
        settings: &mut ClusterBuilder<ExecutorSettings>,
    ) -> Result<Self, ClusterError> {
        let server = Server::start(settings.role.server_program.take()).await?;
        let door = &mut settings.door;
        door.token = Some(server.token.clone());
        if door.key.is_none() {
            door.key = Some(hex(&random::<32>()?).into_bytes());
        }
        if settings.role.is_without_host {
            return Ok(Self { host: None, server });
        }
        // Its tasks are those of the executor, which waits for them. So the host need not.
        let mut host = ClusterHost::builder()
            .url(&server.url)
            .drain(Duration::ZERO);
        host.workers = settings.workers;
        host.is_by_name = settings.is_by_name;
        host.environment.clone_from(&settings.environment);
        host.door = Door {
            url: host.door.url,
            ..door.clone()
        };
        Ok(Self {
            host: Some(host.serve().await?),
            server,
        })
    }

    /// Ends the host, and then the server.
    pub(super) async fn stop(self) {
        if let Some(host) = self.host {
            host.stop().await;
        }
        drop(self.server);
    }
}
