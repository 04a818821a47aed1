//! Starts worker processes by the pool's spawner, and sends each worker its settings.

#![forbid(unsafe_code)]

use crate::error::process::WorkerExit;
use crate::process::channel::handshake::{FRONTEND, LANE, NO_FUNCTION, NO_LANE, Setup};
use crate::process::channel::{CAPACITY, Memory, Reader, SegmentChannel, Writer};
use crate::process::contract::{EndedWorker, StartedWorker, WorkerRequests, WorkerSpawner};
use crate::process::pool::child::Child;
use crate::process::pool::settings::Settings;
use crate::process::pool::worker_handle::WorkerHandle;
use crate::runtime::os::image::image;
use crate::runtime::os::shared::Shared;
use crate::runtime::os::socket::Socket;
use std::collections::VecDeque;
use std::io;
use std::os::fd::AsFd;
use std::sync::Arc;

/// Starts workers, and holds the sockets of requested ones.
#[derive(Debug, Default)]
pub(crate) struct Starter {
    /// Our ends of the sockets of requested workers, in the order of the requests.
    requested: VecDeque<Socket>,
}

impl Starter {
    /// Starts a worker, and sends it its settings. Returns none if the spawner has requested the worker:
    /// [`collect`](Self::collect) returns it later.
    pub(crate) fn start(
        &mut self,
        spawner: &dyn WorkerSpawner,
        settings: &Settings,
    ) -> io::Result<Option<WorkerHandle>> {
        let (ours, theirs) = Socket::pair()?;
        if let Some(started) = spawner.start(theirs.into_fd())? {
            return set_up(spawner, settings, started, ours).map(Some);
        }
        self.requested.push_back(ours);
        Ok(None)
    }

    /// Abandons the requested workers. Returns their number.
    pub(crate) fn abandon(&mut self, spawner: &dyn WorkerSpawner) -> usize {
        if !self.requested.is_empty()
            && let Some(requests) = spawner.requests()
        {
            requests.abandon();
        }
        let abandoned = self.requested.len();
        self.requested.clear();
        abandoned
    }

    /// Takes the requested workers that have come, and sends them their settings.
    pub(crate) fn collect(
        &mut self,
        spawner: &dyn WorkerSpawner,
        settings: &Settings,
    ) -> Vec<io::Result<WorkerHandle>> {
        let outcomes = spawner.requests().map(WorkerRequests::collect);
        let outcomes = outcomes.into_iter().flatten();
        // Each request has one outcome.
        let outcomes = outcomes.zip(std::iter::from_fn(|| self.requested.pop_front()));
        outcomes
            .map(|(outcome, ours)| set_up(spawner, settings, outcome?, ours))
            .collect()
    }
}

/// Takes the exit status of a worker that has ended. `replaced`, if the pool goes on without the worker.
pub(crate) fn exit_of(spawner: &dyn WorkerSpawner, child: &Child, replaced: bool) -> WorkerExit {
    spawner.exit_of(&EndedWorker::new(child.pid(), replaced, &|| child.reap()))
}

/// Sends a worker its settings. A worker that does not take them is killed and reaped.
fn set_up(
    spawner: &dyn WorkerSpawner,
    settings: &Settings,
    started: StartedWorker,
    socket: Socket,
) -> io::Result<WorkerHandle> {
    let child = if started.is_child {
        Child::new(started.pid, socket, settings.is_lean)
    } else {
        Child::with_pidfd(started.pid, started.pidfd, socket)
    };
    let child = Arc::new(child?);
    let set_up = || {
        let (shared, memory) = Memory::create(CAPACITY)?;
        let (file, segment) = match &shared {
            Shared::File(file) => (Some(file.as_fd()), None),
            Shared::Segment(number) => (None, Some(*number)),
        };
        let setup = Setup {
            capacity: CAPACITY as u64,
            memory_limit: settings.memory_limit,
            segment,
        };
        let identity = if settings.policy.workers_are_this_program {
            image()?.identity()
        } else {
            FRONTEND
        };
        // A worker that has died is noticed as any other.
        let _ = child.socket.send(&setup.encode(identity), file);
        let lane = match (settings.policy.sends_segments, settings.is_lean) {
            (false, _) => None,
            // Long buffers go through the streams.
            (true, true) => {
                let _ = child.socket.send(NO_LANE, None);
                None
            }
            (true, false) => {
                let (ours, theirs) = SegmentChannel::pair()?;
                let _ = child.socket.send(LANE, Some(theirs.as_fd()));
                Some(ours)
            }
        };
        let (writer, reader) = (Writer::to_worker(&memory), Reader::from_worker(&memory));
        let mut worker =
            WorkerHandle::new(Arc::clone(&child), writer, reader, lane, &settings.recorded);
        let (function, argument) = match &settings.initializer {
            Some((function, argument)) => (*function, Arc::clone(argument)),
            None => (NO_FUNCTION, Arc::default()),
        };
        worker
            .initialize(function, argument)
            .map_err(io::Error::other)?;
        Ok(worker)
    };
    set_up().inspect_err(|_: &io::Error| {
        child.kill();
        child.tell();
        exit_of(spawner, &child, true);
    })
}
