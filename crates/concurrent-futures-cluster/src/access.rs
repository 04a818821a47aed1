//! The way to a server, as builders take it.

#![forbid(unsafe_code)]

use crate::bus::Bus;
use crate::error::{ClusterError, ObjectStoreError};
use crate::nats::{Access, Nats};
use crate::objects::{self, Objects};
use crate::wire::Seal;
use std::env;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

/// The variables that stand for settings.
pub(crate) const URL: &str = "CONCURRENT_FUTURES_URL";
pub(crate) const KEY: &str = "CONCURRENT_FUTURES_KEY";
pub(crate) const QUEUE: &str = "CONCURRENT_FUTURES_QUEUE";
const TOKEN: &str = "CONCURRENT_FUTURES_TOKEN";
const CREDENTIALS: &str = "CONCURRENT_FUTURES_CREDENTIALS";
const NKEY: &str = "CONCURRENT_FUTURES_NKEY";
const OBJECT_STORE: &str = "CONCURRENT_FUTURES_OBJECT_STORE";
const OBJECT_STORE_ABOVE: &str = "CONCURRENT_FUTURES_OBJECT_STORE_ABOVE";
const ROOT_CERTIFICATES: &str = "CONCURRENT_FUTURES_ROOT_CERTIFICATES";
/// The variables that workers of a host need not know.
pub(crate) const SECRETS: [&str; 3] = [KEY, TOKEN, NKEY];

/// The time for which a task is a host's own, unless the host extends it.
const LEASE: Duration = Duration::from_secs(15);
/// A shorter lease would end in every pause of a host.
const SHORTEST_LEASE: Duration = Duration::from_secs(1);

/// The settings that clients and hosts have in common.
#[derive(Clone)]
pub(crate) struct Door {
    pub(crate) url: Option<String>,
    pub(crate) queue: Option<String>,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) insecure: bool,
    pub(crate) tag: String,
    pub(crate) lease: Duration,
    pub(crate) token: Option<String>,
    pub(crate) credentials: Option<PathBuf>,
    pub(crate) nkey: Option<String>,
    pub(crate) root_certificates: Option<PathBuf>,
    pub(crate) object_store: Option<String>,
    pub(crate) object_store_above: Option<u64>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            url: None,
            queue: None,
            key: None,
            insecure: false,
            tag: String::new(),
            lease: LEASE,
            token: None,
            credentials: None,
            nkey: None,
            root_certificates: None,
            object_store: None,
            object_store_above: None,
        }
    }
}

impl Door {
    /// Returns the name of the queue.
    pub(crate) fn queue_name(&self) -> Result<String, ClusterError> {
        let given = self.queue.clone().or_else(|| env::var(QUEUE).ok());
        let name = given.unwrap_or_else(|| String::from("default"));
        if is_queue_name(&name) {
            Ok(name)
        } else {
            Err(ClusterError::QueueName(name))
        }
    }

    /// Returns the key of the queue.
    pub(crate) fn key(&self) -> Option<Vec<u8>> {
        let given = self.key.clone();
        given.or_else(|| env::var(KEY).ok().map(String::into_bytes))
    }

    /// Returns the seal of messages for a server.
    ///
    /// # Errors
    /// [`ClusterError::NoKey`], without a key for a server of another machine.
    pub(crate) fn seal(&self, url: &str) -> Result<Seal, ClusterError> {
        let key = self.key();
        if key.is_none() && !self.insecure && !is_loopback(url) {
            return Err(ClusterError::NoKey(without_secrets(url)));
        }
        Ok(Seal::new(key.as_deref()))
    }

    /// Opens the object store, if one is given.
    pub(crate) fn objects(&self) -> Result<Option<Arc<Objects>>, ClusterError> {
        let given = self.object_store.clone();
        let Some(place) = given.or_else(|| env::var(OBJECT_STORE).ok()) else {
            return Ok(None);
        };
        let above = match (self.object_store_above, env::var(OBJECT_STORE_ABOVE)) {
            (Some(above), _) => above,
            (None, Ok(text)) => text.parse().map_err(|_| {
                let text = format!("{OBJECT_STORE_ABOVE} is {text:?}, and no number of bytes");
                ObjectStoreError::told(text)
            })?,
            (None, Err(_)) => objects::ABOVE,
        };
        Ok(Some(Arc::new(Objects::open(place, above)?)))
    }

    /// Connects to a server.
    pub(crate) async fn connect(
        &self,
        url: &str,
        inbox: &'static str,
    ) -> Result<Arc<dyn Bus>, ClusterError> {
        Ok(Arc::new(self.connect_nats(url, inbox).await?))
    }

    /// Connects to a server, for calls that have nothing to do with tasks.
    pub(crate) async fn connect_nats(
        &self,
        url: &str,
        inbox: &'static str,
    ) -> Result<Nats, ClusterError> {
        if self.lease < SHORTEST_LEASE {
            return Err(ClusterError::ShortLease(self.lease));
        }
        let addresses = addresses(url);
        let has_scheme = |scheme| move |address: &&str| address.starts_with(scheme);
        let require_tls = addresses.iter().any(has_scheme("tls://"));
        let is_plain = has_scheme("nats://");
        if !addresses
            .iter()
            .all(|address| is_plain(address) || address.starts_with("tls://"))
        {
            return Err(ClusterError::Address(without_secrets(url)));
        }
        let mut access = Access {
            addresses: addresses.into_iter().map(str::to_owned).collect(),
            token: self.token.clone(),
            credentials: self.credentials.clone(),
            nkey: self.nkey.clone(),
            require_tls,
            root_certificates: self.root_certificates.clone(),
            lease: self.lease,
            inbox,
        };
        // One way to log in is enough. That of the program goes before those of the variables.
        if access.token.is_none() && access.credentials.is_none() && access.nkey.is_none() {
            access.token = env::var(TOKEN).ok();
            access.credentials = env::var_os(CREDENTIALS).map(PathBuf::from);
            access.nkey = env::var(NKEY).ok();
        }
        if access.root_certificates.is_none() {
            access.root_certificates = env::var_os(ROOT_CERTIFICATES).map(PathBuf::from);
        }
        let nats = Nats::connect(&access)
            .await
            .map_err(|cause| ClusterError::Connect {
                url: without_secrets(url),
                cause,
            })?;
        if !nats.is_at_least(2, 12, 5) {
            return Err(ClusterError::ServerVersion {
                url: without_secrets(url),
                version: nats.version(),
            });
        }
        Ok(nats)
    }
}

/// Returns whether a text can name a queue.
pub(crate) fn is_queue_name(name: &str) -> bool {
    let is_part = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    !name.is_empty() && name.len() <= 64 && name.bytes().all(is_part)
}

/// Splits a list of addresses: those of the nodes of a server. Each has its scheme. Other commas are part of a password.
fn addresses(urls: &str) -> Vec<&str> {
    let mut addresses = Vec::new();
    let mut rest = urls;
    while let Some(comma) = [",nats://", ",tls://"]
        .iter()
        .filter_map(|begin| rest.find(begin))
        .min()
    {
        addresses.push(&rest[..comma]);
        rest = &rest[comma + 1..];
    }
    addresses.push(rest);
    addresses
}

/// Returns the part of an address that has the name of a machine.
fn machine(address: &str) -> &str {
    let rest = address.split_once("://").map_or(address, |(_, rest)| rest);
    rest.rsplit_once('@').map_or(rest, |(_, machine)| machine)
}

pub(crate) fn without_secrets(urls: &str) -> String {
    let shown = addresses(urls).into_iter().map(|address| {
        let scheme = address.split_once("://").map_or("", |(scheme, _)| scheme);
        format!("{scheme}://{}", machine(address))
    });
    shown.collect::<Vec<_>>().join(",")
}

/// Returns whether all nodes of a server are on this machine, by their addresses.
fn is_loopback(urls: &str) -> bool {
    addresses(urls).into_iter().all(is_address_of_loopback)
}

fn is_address_of_loopback(address: &str) -> bool {
    let address = machine(address);
    let address = address
        .split_once('/')
        .map_or(address, |(address, _)| address);
    let host = match address.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => address,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost"
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn loopback_is_told_from_other_machines() {
        for url in [
            "nats://127.0.0.1:4222",
            "nats://localhost",
            "tls://user:word@127.1.2.3:1",
            "nats://[::1]:4222",
            "nats://127.0.0.1:1,nats://ann:a,b@localhost:2,tls://[::1]:3",
        ] {
            assert!(is_loopback(url), "{url}");
        }
        for url in [
            "nats://10.0.0.1:4222",
            "nats://localhost.example.org:4222",
            "nats://127.0.0.1@example.org:4222",
            "nats://127.0.0.1.example.org",
            "nats://[2001:db8::1]:4222",
            "nats://127.0.0.1:4222,10.0.0.1:4222",
            "nats://127.0.0.1:4222,nats://10.0.0.1:4222",
            "nats://10.0.0.1:4222,nats://127.0.0.1:4222",
        ] {
            assert!(!is_loopback(url), "{url}");
        }
    }

    #[test]
    fn errors_show_no_secrets() {
        let error = Door::default()
            .seal("nats://user:word@10.0.0.1:4222")
            .unwrap_err();
        assert!(
            matches!(&error, ClusterError::NoKey(url) if url == "nats://10.0.0.1:4222"),
            "{error}"
        );
    }

    #[test]
    fn each_address_of_a_list_is_shown_without_secrets() {
        let list = "nats://ann:a,b@one:1,tls://bob@two,nats://three:3";
        let shown = without_secrets(list);
        assert_eq!(shown, "nats://one:1,tls://two,nats://three:3");
        assert_eq!(
            addresses(list),
            ["nats://ann:a,b@one:1", "tls://bob@two", "nats://three:3"]
        );
    }

    #[test]
    fn a_server_of_another_machine_needs_a_key_or_a_declaration() {
        let url = "nats://10.0.0.1:4222";
        let keyed = Door {
            key: Some(b"secret".to_vec()),
            ..Door::default()
        };
        assert!(keyed.seal(url).unwrap().is_keyed());
        let insecure = Door {
            insecure: true,
            ..Door::default()
        };
        assert!(!insecure.seal(url).unwrap().is_keyed());
    }
}
