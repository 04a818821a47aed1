//! The supply of tasks for a host.

use super::{Memory, Server};
use crate::bus::{BusError, Lane, Later, Supplied, Supply};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};

/// The supply of a host.
pub(super) struct Requests {
    server: Arc<Server>,
    is_cut: Arc<AtomicBool>,
    lane: String,
    changed: watch::Receiver<()>,
    connections: watch::Receiver<u64>,
    losses: watch::Receiver<u64>,
    /// The number of tasks that were asked for and have not come, and of those that the server has sent in vain.
    open: usize,
    lost: usize,
    end: Instant,
    /// The numbers of tasks in requests that the server does not have yet, and when it will.
    on_way: VecDeque<(Instant, usize)>,
    is_probing: bool,
    /// When the probe comes to the server, and when its answer comes back, unless that is a task.
    probe_comes: Option<Instant>,
    answer_comes: Option<Instant>,
}

impl Requests {
    pub(super) fn new(memory: &Memory, lane: &Lane) -> Self {
        let server = &memory.server;
        Self {
            server: Arc::clone(server),
            is_cut: Arc::clone(&memory.is_cut),
            lane: lane.subject(),
            changed: server.changed.subscribe(),
            connections: server.connections.subscribe(),
            losses: server.lost_requests.subscribe(),
            open: 0,
            lost: 0,
            end: Instant::now(),
            on_way: VecDeque::new(),
            is_probing: false,
            probe_comes: None,
            answer_comes: None,
        }
    }

    /// Returns when a message that is sent now comes to the other side, behind those that were sent before.
    fn arrival(&self) -> Instant {
        let at = Instant::now() + self.server.lock().travel_time();
        let before = self.on_way.back().map(|(before, _)| *before);
        before.map_or(at, |before| before.max(at))
    }
}

impl Supply for Requests {
    fn ask(&mut self, count: usize, wait: Duration) -> Later<'_, ()> {
        self.open += count;
        self.end = Instant::now() + wait;
        let arrival = self.arrival();
        self.on_way.push_back((arrival, count));
        Box::pin(std::future::ready(Ok(())))
    }

    fn probe(&mut self) -> Later<'_, ()> {
        self.is_probing = true;
        self.probe_comes = Some(self.arrival());
        Box::pin(std::future::ready(Ok(())))
    }

    fn open(&self) -> usize {
        self.open
    }

    fn is_probing(&self) -> bool {
        self.is_probing
    }

    fn next(&mut self) -> Later<'_, Supplied> {
        Box::pin(async move {
            loop {
                self.changed.mark_unchanged();
                if self.losses.has_changed().unwrap_or(false) {
                    self.losses.mark_unchanged();
                    self.lost = self.open;
                }
                let is_cut = self.is_cut.load(Ordering::SeqCst);
                let now = Instant::now();
                self.on_way.retain(|(arrival, _)| *arrival > now);
                let on_way: usize = self.on_way.iter().map(|(_, count)| count).sum();
                let has_room = self.open > self.lost + on_way;
                let is_probed = self.probe_comes.is_some_and(|arrival| arrival <= now);
                if self.answer_comes.is_some_and(|arrival| arrival <= now) && !is_cut {
                    self.answer_comes = None;
                    self.is_probing = false;
                    return Ok(Supplied::Empty);
                }
                let mut next = None;
                if !is_cut && (has_room || is_probed) {
                    match self.server.take(&self.lane) {
                        Ok(delivery) => {
                            let is_lost = {
                                let mut state = self.server.lock();
                                state.random.below(1000) < state.lost
                            };
                            if has_room {
                                if is_lost {
                                    self.lost += 1;
                                    continue;
                                }
                                self.open -= 1;
                            } else if is_lost {
                                return Err(BusError::TimedOut);
                            } else {
                                self.probe_comes = None;
                                self.is_probing = false;
                            }
                            return Ok(Supplied::Task(delivery));
                        }
                        Err(_) if is_probed => {
                            self.probe_comes = None;
                            self.answer_comes = Some(self.arrival());
                            continue;
                        }
                        Err(again) => next = again,
                    }
                }
                let end = Some(self.end).filter(|_| self.open > 0);
                let on_way = self.on_way.front().map(|(arrival, _)| *arrival);
                let arrivals = on_way.into_iter();
                let arrivals = arrivals.chain(self.probe_comes).chain(self.answer_comes);
                // Of a connection that is cut, some have come in vain.
                let arrivals = arrivals.filter(|arrival| *arrival > now);
                let end = end.into_iter().chain(next).chain(arrivals).min();
                let pause = async {
                    match end {
                        Some(end) => sleep_until(end).await,
                        None => std::future::pending().await,
                    }
                };
                tokio::select! {
                    _ = self.changed.changed() => {}
                    _ = self.connections.changed() => return Err(BusError::Closed),
                    () = pause => if self.open > 0 && self.end <= Instant::now() {
                        if self.lost > 0 || is_cut {
                            return Err(BusError::TimedOut);
                        }
                        self.open = 0;
                        return Ok(Supplied::Less);
                    }
                }
            }
        })
    }
}
