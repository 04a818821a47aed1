//! Cancellation and termination, which tell the truth.
//!
//! A task that the server has never delivered is removed from the server, which then says so. For any other task, the
//! host that has it decides: it gives the task up, or says that it runs. Without an answer the task stays running.
//!
//! A server that has lost the task knows nothing of its deliveries. A host may have got the attempt right before, and may
//! begin it. From a third of a lease after the delivery on, the host asks first, and the client says no. So a cancellation
//! waits for a lease after such a loss.

#![forbid(unsafe_code)]

use super::waiting::Waiting;
use super::{Client, Place, Sink, Stage};
use crate::bus::{BusError, Withdrawn};
use crate::log;
use crate::wire::{Answer, Id, Kind, Order, TaskId, What};
use concurrent_futures::TaskError;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep, timeout, timeout_at};

/// The time for which a host may take to answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// The first pause before a server that has failed is asked again.
const AFTER_TROUBLE: Duration = Duration::from_millis(50);

/// The time beyond that for a first host, for which an executor that is being dropped waits for a silent server.
const GIVE_UP: Duration = Duration::from_secs(3);
/// The pause between two looks at the server meanwhile.
const LOOK: Duration = Duration::from_secs(1);

/// The next step of a cancellation.
enum Step {
    /// The task is done, or about to be.
    TooLate,
    /// The task is with this client only.
    Ours,
    /// The task is on its way to the server, or the parcel that has it on its way back.
    Wait,
    /// Until then, a host may begin an attempt that the server has lost.
    WaitUntil(Instant),
    /// The task is in this place on the server, or with a host.
    Ask(u32, Place, Option<Id>),
}

/// The effect of a step.
#[derive(PartialEq, Eq)]
enum Taken {
    /// No host runs the task.
    Yes,
    No,
    /// The task is not where it was.
    Elsewhere,
}

impl Client {
    /// Takes back a task that no host has begun, and will not begin. Returns its sink, which the caller is to cancel.
    pub(crate) async fn cancel(self: &Arc<Self>, number: u64) -> Option<Box<dyn Sink>> {
        self.cancel_wire(self.wire(number)).await
    }

    async fn cancel_wire(self: &Arc<Self>, number: u64) -> Option<Box<dyn Sink>> {
        let mut changed = self.changed.subscribe();
        loop {
            match self.next_step(number) {
                Step::TooLate => return None,
                Step::Ours => return self.finish_cancel(number).await,
                Step::Wait => {
                    // The sender is part of the client.
                    let _ = changed.changed().await;
                }
                Step::WaitUntil(until) => {
                    // The sender is part of the client. An outcome ends the wait as well.
                    let _ = timeout_at(until, changed.changed()).await;
                }
                Step::Ask(attempt, place, holder) => {
                    let taken = self.take_from_cluster(number, attempt, place, holder);
                    match taken.await {
                        Taken::No => return None,
                        // The host may have given the task back before it answered. Then it was submitted again. Or
                        // another host has begun it meanwhile, to which the server had delivered it as well.
                        Taken::Yes if self.is_unbegun(number, attempt) => {
                            return self.finish_cancel(number).await;
                        }
                        Taken::Yes | Taken::Elsewhere => {}
                    }
                }
            }
        }
    }

    /// Returns whether this is the attempt of a task that no host has begun. An attempt has one place on the server. So
    /// the place need not be compared as well.
    fn is_unbegun(&self, number: u64, attempt: u32) -> bool {
        let state = self.lock();
        let entry = state.entries.get(&number);
        entry.is_some_and(|entry| {
            entry.attempt == attempt && matches!(entry.stage, Stage::Published(_)) && !entry.begun
        })
    }

    fn is_at(&self, number: u64, place: Place) -> bool {
        let state = self.lock();
        let entry = state.entries.get(&number);
        entry.is_some_and(|entry| entry.stage == Stage::Published(place))
    }

    fn next_step(&self, number: u64) -> Step {
        let state = self.lock();
        match state.entries.get(&number) {
            None if state.waiting.contains(number) => Step::Ours,
            None => Step::TooLate,
            Some(entry) if entry.runs_elsewhere(&state.hosts) => Step::TooLate,
            Some(entry) => match (entry.stage, entry.unsure_until()) {
                (Stage::Fetching, _) => Step::TooLate,
                (Stage::Published(_), _) if entry.begun => Step::TooLate,
                (_, Some(until)) => Step::WaitUntil(until),
                (Stage::Waiting, None) => Step::Ours,
                (Stage::Published(place), None) if !state.withdrawing.contains(&place.serial) => {
                    Step::Ask(entry.attempt, place, entry.holder)
                }
                // The last one is being withdrawn.
                (
                    Stage::Recording
                    | Stage::Looking
                    | Stage::Publishing
                    | Stage::Leaving
                    | Stage::Published(_),
                    None,
                ) => Step::Wait,
            },
        }
    }

    /// Withdraws the parcel of a task from the server. Returns whether no host has got it. Its other tasks are submitted
    /// again then.
    ///
    /// A server that has failed is asked again for some time, as it may have another node soon. After that the task stays.
    /// If the server has removed the parcel nevertheless, the task is missed after a lease, and submitted again.
    async fn withdraw(self: &Arc<Self>, number: u64, place: Place) -> bool {
        /// Ends the withdrawal, also of a call that is dropped.
        struct Withdrawal<'a>(&'a Client, u64);
        impl Drop for Withdrawal<'_> {
            fn drop(&mut self) {
                self.0.lock().withdrawing.remove(&self.1);
                self.0.wake();
            }
        }
        self.lock().withdrawing.insert(place.serial);
        let _withdrawal = Withdrawal(self, place.serial);
        let request = {
            let state = self.lock();
            let entry = state.entries.get(&number);
            entry.map(|entry| Arc::clone(&entry.request))
        };
        // A task that went to a host directly is not on the server.
        let (Some(request), Some(on_server)) = (request, place.number) else {
            return false;
        };
        let lane = self.lane_of(&request);
        let id = self.parcel_id(place.serial).to_string();
        let began = Instant::now();
        let mut pause = AFTER_TROUBLE;
        let withdrawn = loop {
            match self.bus.withdraw(&lane, on_server, &id).await {
                Err(error) if began.elapsed() < PATIENCE && self.is_at(number, place) => {
                    log::trouble("a task could not be withdrawn yet", &error);
                    sleep(pause).await;
                    pause *= 2;
                }
                withdrawn => break withdrawn,
            }
        };
        match withdrawn {
            Ok(Withdrawn::Untaken) => {
                let others: Vec<u64> = {
                    let state = self.lock();
                    let entries = state.entries.iter();
                    let others = entries.filter(|(other, entry)| {
                        **other != number && entry.stage == Stage::Published(place)
                    });
                    others.map(|(other, _)| *other).collect()
                };
                for other in others {
                    self.submit_again(other);
                }
                true
            }
            Ok(Withdrawn::Delivered | Withdrawn::Gone) => false,
            Err(error) => {
                log::trouble("a task could not be withdrawn", &error);
                false
            }
        }
    }

    /// Makes sure that no host runs a task.
    async fn take_from_cluster(
        self: &Arc<Self>,
        number: u64,
        attempt: u32,
        place: Place,
        holder: Option<Id>,
    ) -> Taken {
        let id = self.id(number, attempt);
        if holder.is_none() {
            if self.withdraw(number, place).await {
                return Taken::Yes;
            }
            // Another cancellation may have withdrawn the parcel.
            if !self.is_at(number, place) {
                return Taken::Elsewhere;
            }
        }
        let (sender, given_up) = oneshot::channel();
        let asked = {
            let mut state = self.lock();
            let Some(entry) = state.entries.get_mut(&number) else {
                return Taken::No;
            };
            if entry.begun {
                return Taken::No;
            }
            if entry.attempt != attempt {
                return Taken::Elsewhere;
            }
            entry.cancelling = Some(sender);
            entry.holder
        };
        let said = tokio::select! {
            biased;
            // A host that got the task after the order gives it back.
            Ok(()) = given_up => Ok(Answer::GivenUp),
            said = self.order(id, What::Recall) => said,
        };
        match said {
            Ok(Answer::GivenUp | Answer::Ends) => return Taken::Yes,
            Ok(_) => {}
            Err(error) => log::trouble("no host answered to a cancellation", &error),
        }
        let mut state = self.lock();
        let Some(entry) = state.entries.get_mut(&number) else {
            return Taken::No;
        };
        // From now on, a task that is given back is submitted again.
        entry.cancelling = None;
        // The task may have come to another place meanwhile, or have been reported by a host that was not asked.
        let is_where_it_was = entry.attempt == attempt
            && entry.stage == Stage::Published(place)
            && entry.holder == asked;
        if entry.begun || is_where_it_was {
            Taken::No
        } else {
            Taken::Elsewhere
        }
    }

    /// Gives an order to the host that has a task, or to all hosts if no host has reported.
    async fn order(&self, task: TaskId, what: What) -> Result<Answer, BusError> {
        let holder = {
            let state = self.lock();
            state
                .entries
                .get(&task.number)
                .and_then(|entry| entry.holder)
        };
        let queue = &self.settings.lane.queue;
        let subject = match holder {
            Some(host) => format!("cf.h.{queue}.{host}"),
            None => format!("cf.h.{queue}.all"),
        };
        let order = Order::Task { task, what };
        let sealed = self
            .settings
            .seal
            .seal(Kind::Order, subject.as_bytes(), &order);
        let answer = tokio::select! {
            answer = self.bus.request(&subject, sealed.clone(), PATIENCE) => answer?,
            // The host that had the task says nothing to an order for all hosts.
            () = self.until_over(task) => return Ok(Answer::Unknown),
        };
        let opened = self
            .settings
            .seal
            .open::<Answer>(Kind::Answer, &sealed, &answer);
        opened.map_err(|refused| BusError::Refused(refused.to_string()))
    }

    /// Waits until an attempt of a task has an outcome, or was given back.
    async fn until_over(&self, task: TaskId) {
        let mut changed = self.changed.subscribe();
        loop {
            let is_over = {
                let state = self.lock();
                let entry = state.entries.get(&task.number);
                entry.is_none_or(|entry| {
                    entry.attempt != task.attempt || entry.stage == Stage::Waiting
                })
            };
            if is_over {
                return;
            }
            // The sender is part of the client.
            let _ = changed.changed().await;
        }
    }

    async fn finish_cancel(self: &Arc<Self>, number: u64) -> Option<Box<dyn Sink>> {
        if !self.remove_record(number).await {
            return None;
        }
        let entry = self.remove(&mut self.lock(), number)?;
        self.clean_up(&entry);
        Some(entry.sink)
    }

    /// Ends a running task. Returns whether it will end.
    pub(crate) async fn terminate(self: &Arc<Self>, number: u64) -> bool {
        let number = self.wire(number);
        let attempt = {
            let state = self.lock();
            match state.entries.get(&number) {
                Some(entry) => entry.attempt,
                None if state.waiting.contains(number) => 0,
                None => return false,
            }
        };
        let id = self.id(number, attempt);
        match timeout(2 * PATIENCE, self.order(id, What::Terminate)).await {
            Ok(Ok(Answer::Ends | Answer::GivenUp)) => true,
            Ok(Ok(_)) | Err(_) => false,
            Ok(Err(error)) => {
                log::trouble("no host answered to a termination", &error);
                false
            }
        }
    }

    /// Fails all tasks. The server keeps those that it has, until a host asks for their client, or they age.
    pub(crate) fn abandon(&self) {
        self.fail_all(&TaskError::Abandoned);
    }

    /// Fails all tasks with an error.
    pub(super) fn fail_all(&self, error: &TaskError) {
        let (removed, waiting) = {
            let mut state = self.lock();
            let waiting = std::mem::take(&mut state.waiting);
            self.note_if_idle(&state);
            let numbers: Vec<u64> = state.entries.keys().copied().collect();
            let entries = numbers.into_iter();
            let removed = entries.filter_map(|number| self.remove(&mut state, number));
            (removed.collect::<Vec<_>>(), waiting)
        };
        // A cancellation that waits looks again.
        self.wake();
        // Entries of the others are made one by one.
        let waiting = waiting.into_iter().map(Waiting::into_entry);
        for entry in removed.into_iter().chain(waiting) {
            Self::fail(entry, error.clone());
        }
    }

    /// Abandons all tasks when neither the server nor a host has given a sign for some time.
    pub(crate) async fn give_up_if_silent(self: Arc<Self>) {
        let most = self.settings.wait_for_workers + GIVE_UP;
        let mut answered = Instant::now();
        loop {
            // A server that is silent causes no event.
            sleep(LOOK).await;
            let left = most.saturating_sub(answered.elapsed());
            // Each look has some time for its answer, the last one as well.
            let error = match timeout(left.max(LOOK), self.hosts()).await {
                Ok(Ok(_)) => {
                    answered = Instant::now();
                    continue;
                }
                Ok(Err(error)) => error,
                Err(_) => BusError::TimedOut,
            };
            // A report of a host has come by way of the server.
            answered = self.lock().host_seen.unwrap_or(answered).max(answered);
            if answered.elapsed() >= most {
                log::trouble(
                    "the tasks of an executor that was dropped are given up",
                    &error,
                );
                return self.abandon();
            }
        }
    }

    /// Takes back all tasks that no host has begun. Returns their sinks, which the caller is to cancel.
    pub(crate) async fn cancel_all(self: Arc<Self>) -> Vec<Box<dyn Sink>> {
        use futures_util::StreamExt;
        /// Lets tasks be published again, also if the cancellation is dropped.
        struct Hold(Arc<Client>);
        impl Drop for Hold {
            fn drop(&mut self) {
                self.0.lock().is_on_hold = false;
                self.0.wake();
            }
        }
        self.lock().is_on_hold = true;
        let _hold = Hold(Arc::clone(&self));
        let mut numbers: Vec<u64> = {
            let state = self.lock();
            let entries = state.entries.keys().copied();
            entries.chain(state.waiting.numbers()).collect()
        };
        // The last first, as hosts take the first.
        numbers.sort_unstable_by_key(|number| std::cmp::Reverse(*number));
        futures_util::stream::iter(numbers)
            .map(|number| {
                let client = Arc::clone(&self);
                async move { client.cancel_wire(number).await }
            })
            .buffer_unordered(64)
            .filter_map(std::future::ready)
            .collect()
            .await
    }
}
