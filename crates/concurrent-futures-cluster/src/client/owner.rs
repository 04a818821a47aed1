//! The owner of a session.
//!
//! A session has one *owner*. Its claim holds for one lease, and is renewed three times in that. An owner that does not
//! know whether its claim holds does nothing: it answers to no host, and publishes nothing. So two clients never contradict
//! each other, with one exception: a process that stands still between a look at the clock and the next line. That costs a
//! run of a task, and no outcome, as the first outcome in the store is the one that counts. The owner also writes itself
//! down for longer. So a client whose claim has ended knows whether another one has come and gone.

#![forbid(unsafe_code)]

use super::{Client, State, failed};
use crate::bus::kept::Claimed;
use crate::bus::{BusError, StoreKey};
use crate::error::{ClusterError, SessionLost, TaskName};
use crate::log;
use crate::os;
use crate::wire::{Kind, Owner, random};
use bytes::Bytes;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// Makes the owner of a session, as its claim shows it.
pub(super) fn new_owner() -> std::io::Result<Owner> {
    Ok(Owner {
        machine: os::machine(),
        pid: std::process::id(),
        nonce: random()?,
    })
}

impl Client {
    /// Returns whether this client may act for its session. A session that is not kept has no other client.
    pub(crate) fn is_owner(&self) -> bool {
        self.settings.kept.is_none() || self.is_owned(&self.lock())
    }

    pub(super) fn is_owned(&self, state: &State) -> bool {
        state.session.is_owned(self.bus.lease())
    }

    fn owner_place(&self) -> String {
        format!("cf.s.{}.{}", self.settings.lane.queue, self.session)
    }

    pub(super) fn owner_frame(&self) -> Bytes {
        let place = self.owner_place();
        self.settings
            .seal
            .seal(Kind::Owner, place.as_bytes(), &self.owner)
    }

    /// Returns the owner in a claim. None if the claim has another key or version.
    fn owner_in(&self, frame: &[u8]) -> Option<Owner> {
        let place = self.owner_place();
        let opened = self
            .settings
            .seal
            .open(Kind::Owner, place.as_bytes(), frame);
        opened
            .inspect_err(|refused| log::refused("the claim of a session", refused))
            .ok()
    }

    /// Claims the session, unless another client has it.
    pub(crate) async fn claim_session(&self) -> Result<(), ClusterError> {
        let Some(kept) = &self.settings.kept else {
            return Ok(());
        };
        let queue = &self.settings.lane.queue;
        let made = self.bus.ensure_kept(queue, kept.replicas).await;
        made.map_err(|cause| match cause {
            BusError::Refused(_) if kept.replicas > 1 => ClusterError::Replicas {
                replicas: kept.replicas,
                cause,
            },
            cause => ClusterError::Server(cause),
        })?;
        let frame = self.owner_frame();
        loop {
            let since = Instant::now();
            let claimed = self.bus.claim(queue, self.session, frame.clone(), 0);
            match claimed.await? {
                Claimed::Ours(number) => {
                    self.lock().session.claim = Some((number, since));
                    return Ok(());
                }
                Claimed::Theirs(_, frame) => {
                    let name = kept.name.clone();
                    return Err(match self.owner_in(&frame) {
                        Some(owner) => ClusterError::SessionInUse {
                            session: name,
                            machine: owner.machine,
                            pid: owner.pid,
                        },
                        None => ClusterError::SessionKey(name),
                    });
                }
                // It has ended just now.
                Claimed::Free => {}
            }
        }
    }

    /// Renews the claim of the session, until it ends or is lost.
    pub(super) async fn own(self: Arc<Self>) {
        if self.settings.kept.is_none() {
            return std::future::pending().await;
        }
        let mut connections = self.bus.connections();
        connections.mark_unchanged();
        let mut wait = self.bus.lease() / 3;
        loop {
            // After a new connection, the claim may be another client's.
            let _ = timeout(wait, connections.changed()).await;
            connections.mark_unchanged();
            wait = match self.renew().await {
                Ok(true) => self.bus.lease() / 3,
                Ok(false) => return,
                Err(error) => {
                    log::trouble("the claim of a session could not be renewed", &error);
                    (self.bus.lease() / 10).min(Duration::from_secs(1))
                }
            };
        }
    }

    /// Renews the claim once. Returns false if there is none any more.
    async fn renew(self: &Arc<Self>) -> Result<bool, BusError> {
        let _renewing = self.renewing.lock().await;
        let Some((mut last, _)) = self.lock().session.claim else {
            return Ok(false);
        };
        let frame = self.owner_frame();
        loop {
            let since = Instant::now();
            let queue = &self.settings.lane.queue;
            let claimed = self.bus.claim(queue, self.session, frame.clone(), last);
            match claimed.await {
                Ok(Claimed::Ours(number)) => {
                    if let Some(other) = self.owner_meanwhile().await? {
                        self.bus.release(queue, self.session, number).await?;
                        self.lose(Some(other));
                        return Ok(false);
                    }
                    let session = &mut self.lock().session;
                    session.is_doubtful = false;
                    session.claim = Some((number, since));
                    self.wake();
                    return Ok(true);
                }
                Ok(Claimed::Theirs(number, content)) => match self.owner_in(&content) {
                    // The answer to an earlier renewal was lost.
                    Some(owner) if owner == self.owner => last = number,
                    owner => {
                        self.lose(owner);
                        return Ok(false);
                    }
                },
                Ok(Claimed::Free) => {
                    self.lock().session.is_doubtful = true;
                    // Before the claim, which the other client would take for a third one's. And after it, once no
                    // other client can open the session.
                    if let Some(other) = self.owner_meanwhile().await? {
                        self.lose(Some(other));
                        return Ok(false);
                    }
                    last = 0;
                }
                Err(error) => {
                    if matches!(error, BusError::NoListener) {
                        self.ensure_stores().await;
                    }
                    return Err(error);
                }
            }
        }
    }

    /// Returns the client that has opened the session after this one, if the claim had ended. It may have left tasks, and
    /// cancelled some.
    async fn owner_meanwhile(&self) -> Result<Option<Owner>, BusError> {
        if !self.lock().session.is_doubtful {
            return Ok(None);
        }
        let last_owner = StoreKey::last_owner(&self.lane.queue, self.session);
        let found = self.bus.fetch(&last_owner).await?;
        let found = found.and_then(|frame| self.owner_in(&frame));
        Ok(found.filter(|owner| *owner != self.owner))
    }

    /// Fails all tasks, as the session has another owner.
    fn lose(&self, owner: Option<Owner>) {
        let name = self.settings.kept.as_ref().map(|kept| kept.name.clone());
        let lost = SessionLost {
            task: TaskName::default(),
            session: name.unwrap_or_default(),
            owner: owner.map(|owner| (owner.machine, owner.pid)),
        };
        {
            let mut state = self.lock();
            state.session.lost = Some(lost.clone());
            state.session.claim = None;
        }
        self.fail_all(&failed(lost));
    }

    /// Sends what waits to be sent, and gives the session free for another client.
    pub(crate) async fn release(&self) {
        if self.send_receipts().await
            && let Err(error) = self.bus.flush().await
        {
            log::trouble("the last receipts may not have been sent", &error);
        }
        let _renewing = self.renewing.lock().await;
        let claim = self.lock().session.claim.take();
        let Some((last, since)) = claim else { return };
        // One that has ended may be another client's.
        if since.elapsed() < self.bus.lease() {
            let queue = &self.settings.lane.queue;
            if let Err(error) = self.bus.release(queue, self.session, last).await {
                log::trouble("a session could not be given free", &error);
            }
        }
    }

    /// Removes all that the session has on the server, and gives it free.
    pub(crate) async fn discard_session(&self) -> Result<(), BusError> {
        self.fail_all(&concurrent_futures::TaskError::Abandoned);
        let discarded = if self.is_owner() {
            self.bus
                .discard(&self.settings.lane.queue, self.session)
                .await
        } else {
            Err(BusError::Refused(String::from(
                "the session is not this client's",
            )))
        };
        if discarded.is_ok() {
            let removed = self.payloads.forget_all(&self.lane.queue, self.session);
            if let Err(error) = removed.await {
                log::trouble("the objects of a session could not be removed", &error);
            }
        }
        self.release().await;
        discarded
    }
}
