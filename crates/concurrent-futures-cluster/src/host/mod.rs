//! The host: takes tasks of a queue, has them carried out by its runner, and reports to their clients.
//!
//! A task is *held* from its delivery until it is settled. It waits in `ready`, then runs, then its outcome is on
//! the way to the client. While a task is held, the host extends its delivery, so that no other host gets it.
//!
//! The order that must hold for each task: the outcome is with the client, or in the store of outcomes, *before*
//! the delivery is acknowledged. So no death of the host loses an outcome; at worst the task runs again.

#![forbid(unsafe_code)]

mod arrival;
mod direct;
mod give_back;
mod hold;
mod kept;
mod lanes;
mod orders;
mod parts;
mod registry;
mod report;
mod run;
mod state;

use crate::bus::kept::RANKS;
use crate::bus::{Bus, BusError, PRIORITIES, StoreKey};
use crate::clock::Clock;
use crate::error::ClusterError;
use crate::log;
use crate::payloads::Payloads;
use crate::runner::Runner;
use crate::waits::{Waits, Word};
use crate::wire::Id;
use report::Reporters;
use state::Host;
pub(crate) use state::Settings;
use std::sync::{Arc, Mutex};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

/// Runs a host until `stop` says so, and the host has drained.
///
/// A panic is a defect, of this crate or of a runner. No part can be missed for long: without one, tasks would come and
/// not run. So a host of which a part has panicked drains and ends, and its tasks come to others.
///
/// # Errors
/// [`ClusterError::Server`], when the server cannot be listened to. [`ClusterError::Panicked`].
pub(crate) async fn serve(
    bus: Arc<dyn Bus>,
    runner: Arc<dyn Runner>,
    settings: Settings,
    waits: Option<Waits>,
    mut stop: watch::Receiver<bool>,
    ready: Option<oneshot::Sender<()>>,
) -> Result<(), ClusterError> {
    let id = Id::random().map_err(|error| BusError::Refused(error.to_string()))?;
    let host = Arc::new(Host {
        reporters: Reporters::new(id),
        payloads: Payloads::new(Arc::clone(&bus), settings.objects.clone()),
        bus,
        runner,
        settings,
        id,
        state: Mutex::default(),
        changed: watch::Sender::new(()),
        has_room: watch::Sender::new(()),
        is_full: Notify::new(),
        kept_is_there: watch::Sender::new(false),
        kept_doubt: watch::Sender::new(()),
        requests_doubt: watch::Sender::new(()),
        clock: Clock::default(),
        broken: watch::Sender::new(None),
    });
    let mut tasks = JoinSet::new();
    for subject in [host.subject(), format!("cf.h.{}.all", host.settings.queue)] {
        let notes = host.bus.listen(&subject).await?;
        tasks.spawn(Arc::clone(&host).listen(subject, notes));
    }
    tasks.spawn(Arc::clone(&host).extend());
    tasks.spawn(Arc::clone(&host).keep_time());
    let mut pulls = JoinSet::new();
    for priority in 0..PRIORITIES {
        pulls.spawn(Arc::clone(&host).pull(priority));
        for rank in 0..RANKS {
            pulls.spawn(Arc::clone(&host).pull_kept(priority, rank));
        }
    }
    pulls.spawn(Arc::clone(&host).look_for_kept());
    tasks.spawn(Arc::clone(&host).start_tasks());
    tasks.spawn(Arc::clone(&host).give_back_waiting());
    if let Some(waits) = waits {
        let host = Arc::clone(&host);
        tasks.spawn(waits.receive(move |word| match word {
            Word::Sleeps(sleeps) => host.note_sleep(sleeps),
            Word::Part(part) => host.take_part(part),
        }));
    }
    tasks.spawn(Arc::clone(&host).register(ready));
    let mut broken = host.broken.subscribe();
    tokio::select! {
        // An error means that the other side is gone.
        _ = stop.wait_for(|stop| *stop) => {}
        _ = broken.wait_for(Option::is_some) => {}
        () = panic_in(&mut tasks, &host) => {}
        () = panic_in(&mut pulls, &host) => {}
    }
    pulls.shutdown().await;
    host.drain().await;
    tasks.shutdown().await;
    let name = host.name();
    let queue = host.settings.queue.clone();
    if let Err(error) = host.bus.forget(&StoreKey::Host { queue, name }).await {
        log::trouble("a host could not leave the registry", &error);
    }
    host.runner.close();
    let panicked = host.broken.borrow().clone();
    match panicked {
        Some(message) => Err(ClusterError::Panicked(message)),
        None => Ok(()),
    }
}

/// Waits until one of the parts has panicked.
async fn panic_in(parts: &mut JoinSet<()>, host: &Host) {
    while let Some(ended) = parts.join_next().await {
        if let Err(error) = ended
            && let Ok(payload) = error.try_into_panic()
        {
            return host.break_by(payload);
        }
    }
    std::future::pending::<()>().await;
}
