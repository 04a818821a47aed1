//! The state of a pool, and its scheduler: the queue, dispatch, and recall.
//!
//! # Hand-ahead
//! A busy worker gets further tasks only as long as tasks are short. It gets as many as keep it busy for some
//! tenths of a millisecond. The supervisor needs less than that to wake and dispatch more. If a task takes
//! longer than expected, the tasks queued behind it are recalled, and go to the worker that is free first. A
//! task with a time limit has its worker to itself, so that the limit counts its own time.
//!
//! # Order
//! Tasks start in the order in which they were submitted, as a later task may wait for an effect of an earlier
//! one. The queue is sorted by [`Task::order`]. Only hand-ahead can break the order: a task stands behind a long
//! one, and later tasks start elsewhere. So
//! 1. nothing is dispatched to a worker whose task has run for longer than tasks usually do
//!    ([`Pace::patience`]);
//! 2. before a task is dispatched, the tasks behind such a long one are recalled, as are all later tasks that
//!    no worker has begun;
//! 3. tasks are dispatched to busy workers only after [`TRUST`](super::pace::TRUST) short tasks in a row.
//!
//! So a task can be overtaken in one case only: a long task comes right after many short ones. Then tasks may
//! overtake it that are submitted within some tenths of a millisecond.

#![forbid(unsafe_code)]

use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::id::FutureId;
use crate::process::channel::{FutexPark, ReplyKind, Watch};
use crate::process::pool::batch::Batch;
use crate::process::pool::pace::{Pace, STALL};
use crate::process::pool::task::{Ending, Start, Stripped, Task};
use crate::process::pool::wake::{MustWake, Streams, WakeState};
use crate::process::pool::worker_handle::{Arrival, Kill, Stage, WorkerHandle};
use crate::stats::counts::Counts;
use std::cell::OnceCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// The time after which no task stays with a worker that has not begun it, if another worker is idle.
const STARVED: Duration = Duration::from_millis(20);
/// The length of arguments above which a task is written behind one task at most.
const SHORT: usize = 32 * 1024;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(crate) struct State {
    /// Pending tasks, in the order in which they will start.
    pub(crate) queue: VecDeque<Task>,
    pub(crate) workers: Vec<WorkerHandle>,
    /// The number of workers that the pool has come to need.
    pub(crate) wanted: usize,
    pub(crate) max_workers: usize,
    pub(crate) max_tasks: usize,
    /// Whether tasks are accepted.
    pub(crate) open: bool,
    /// Whether tasks that no worker has begun are cancelled.
    pub(crate) cancelling: bool,
    pub(crate) broken: Option<BrokenExecutor>,
    /// The bytes of the failure by which a worker has reported that no worker can start.
    pub(crate) unusable: Option<Vec<u8>>,
    /// Whether a worker has become able to work since the supervisor last looked.
    pub(crate) has_started: bool,
    /// Whether a worker's stream has got room for a task again.
    has_room: bool,
    /// The threads that receive replies, and whether they are awake.
    awake: WakeState,
    /// The latest moment when the supervisor will look at the time.
    pub(crate) watched: Option<Instant>,
    /// Whether that moment is too late for the tasks dispatched since.
    pub(crate) needs_watch: bool,
    /// Tasks that have ended, and are to be finished by the supervisor.
    pub(crate) late: Vec<Task>,
    /// The number of tasks in the queue, at most, that were cancelled and have lost their argument.
    stripped: usize,
    counts: Arc<Counts>,
    /// The number of workers that other threads than the supervisor are starting.
    pub(crate) starting: usize,
    /// Whether the supervisor has ended.
    pub(crate) ended: bool,
    /// The usual running times of tasks.
    pace: Pace,
    /// The number of the next submitted task.
    next_sequence: u64,
    arrivals: Vec<Arrival>,
}

/// The time of one step under the lock, if the step asks for it. Looking at the clock takes as long as the
/// rest of dispatching a short task.
#[derive(Debug, Default)]
struct Clock(OnceCell<Instant>);

impl Clock {
    fn now(&self) -> Instant {
        *self.0.get_or_init(Instant::now)
    }
}

/// Cancelled tasks and their arguments, to be dropped outside the lock.
#[derive(Debug, Default)]
pub(crate) struct Forgotten {
    content: Option<Stripped>,
    tasks: Vec<Task>,
}

impl State {
    pub(crate) fn new(max_workers: usize, max_tasks: usize, counts: Arc<Counts>) -> Self {
        Self {
            counts,
            queue: VecDeque::new(),
            workers: Vec::new(),
            wanted: 0,
            max_workers,
            max_tasks,
            open: true,
            cancelling: false,
            broken: None,
            unusable: None,
            has_started: false,
            has_room: false,
            awake: WakeState::default(),
            watched: None,
            needs_watch: false,
            late: Vec::new(),
            stripped: 0,
            starting: 0,
            ended: false,
            pace: Pace::default(),
            next_sequence: 0,
            arrivals: Vec::new(),
        }
    }

    /// Returns the reason why tasks are not accepted, if they are not.
    pub(crate) fn refusal(&self) -> Option<SubmitError> {
        if self.open {
            return None;
        }
        Some(match &self.broken {
            Some(broken) => SubmitError::Broken(broken.clone()),
            None => SubmitError::Shutdown,
        })
    }

    /// Adds a worker that was started.
    pub(crate) fn add_worker(&mut self, mut worker: WorkerHandle) {
        // Tasks that count as started are in the queue, for the workers that were on their way.
        let is_cancelled = !self.open && self.cancelling && self.queue.is_empty();
        if self.broken.is_some() || is_cancelled {
            // Its end is no failure.
            worker.stage = Stage::Closing;
            worker.child.kill();
        }
        if self.awake.needs_wake_ups() {
            worker.set_asleep(true);
        }
        self.counts.worker_comes();
        self.workers.push(worker);
    }

    /// Returns the number of tasks that no worker has begun, as far as the pool knows, cancelled ones included.
    pub(crate) fn pending(&self) -> usize {
        let waits = |worker: &WorkerHandle| worker.load() - usize::from(worker.has_begun_first());
        let dispatched: usize = self.workers.iter().map(waits).sum();
        self.queue.len() + dispatched
    }

    /// Picks the worker for a task, if a worker takes the task now.
    fn pick(&self, task: &Task, clock: &Clock) -> Option<usize> {
        let credit = self.pace.credit();
        // One that is not is worth to be there when the worker is done with what it has.
        let is_light = task.attachment.is_none() && task.most_bytes() <= SHORT;
        // A few of many items are not worth a message to a busy worker.
        let is_enough = task
            .growing()
            .is_none_or(|items| items >= self.pace.worthwhile_items() / 4);
        let patience = self.pace.patience();
        let mut best = None;
        for (index, worker) in self.workers.iter().enumerate() {
            if !worker.takes_tasks() || worker.handed >= self.max_tasks {
                continue;
            }
            let load = worker.load();
            if load == 0 {
                return Some(index);
            }
            let can_wait = load < credit
                && !worker.stalled
                && task.options.time_limit.is_none()
                && worker
                    .current()
                    .is_none_or(|task| task.options.time_limit.is_none())
                && is_enough
                && (is_light || load == 1)
                && worker.has_room_for_task(task);
            if can_wait
                && best.is_none_or(|(_, least)| load < least)
                && !worker.is_long_at_first(clock.now(), patience)
            {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Accepts a new task: dispatches or queues it. Returns whether a worker should be started.
    pub(crate) fn accept(&mut self, mut task: Task) -> bool {
        task.sequence = self.next_sequence;
        self.next_sequence += 1;
        let clock = Clock::default();
        if self.queue.is_empty() && self.take_back_overtaken(&clock) {
            self.refill();
        }
        let mut is_queued = true;
        if self.queue.is_empty()
            && let Some(index) = self.pick(&task, &clock)
        {
            is_queued = self.workers[index].load() > 0;
            self.hand(index, task, &clock);
            if !self.queue.is_empty() {
                // The rest of a span: there may be more idle workers.
                self.refill();
                is_queued = !self.queue.is_empty();
            }
        } else {
            self.queue.push_back(task);
        }
        is_queued && self.wants_another()
    }

    /// Recalls the tasks that stand behind a long one, and all later ones that no worker has begun. Returns
    /// whether there were any.
    fn take_back_overtaken(&mut self, clock: &Clock) -> bool {
        let patience = self.pace.patience();
        let mut taken = Vec::new();
        for worker in &mut self.workers {
            if worker.load() >= 2 && worker.is_long_at_first(clock.now(), patience) {
                worker.stalled = true;
                self.pace.lose_trust();
                taken.append(&mut worker.take_back(1));
            }
        }
        let Some(first) = taken.iter().map(Task::order).min() else {
            return false;
        };
        for worker in &mut self.workers {
            taken.append(&mut worker.take_back_after(first));
        }
        self.requeue(taken);
        true
    }

    /// Counts one more wanted worker, if the starting workers are not enough.
    fn wants_another(&mut self) -> bool {
        if self.wanted >= self.max_workers {
            return false;
        }
        let ready = |worker: &&WorkerHandle| worker.stage == Stage::Ready;
        let starting = self
            .wanted
            .saturating_sub(self.workers.iter().filter(ready).count());
        if starting > 0 && self.queue.len() <= starting {
            return false;
        }
        self.wanted += 1;
        true
    }

    /// Dispatches a task, unless it was cancelled. Of a span, dispatches as many items as are worth a
    /// message; the rest is the next to be dispatched.
    fn hand(&mut self, index: usize, mut task: Task, clock: &Clock) {
        match task.start() {
            Start::Started => task.leave(),
            Start::Cancelled => {
                self.late.extend(task.into_cancelled());
                return;
            }
            Start::Abandoned => {
                let cancelled = Ending::Error(TaskError::Cancelled);
                self.late.extend(task.end(cancelled));
                return;
            }
        }
        if task.is_of_items() {
            let left = self.max_tasks - self.workers[index].handed;
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            if let Some(rest) = task.cut(self.pace.worthwhile_items().min(left)) {
                self.queue.push_front(rest);
            }
        }
        let limit = match (task.options.time_limit, self.workers[index].load()) {
            (Some(limit), _) => Some(limit),
            // Something will be queued behind a task that may take long. The time need not
            // be exact, and the supervisor is not woken for each of these.
            (None, 1..) => Some(2 * STALL),
            (None, 0) => None,
        };
        if let Some(limit) = limit {
            let due = clock.now().checked_add(limit);
            self.needs_watch |= due.is_some_and(|due| self.watched.is_none_or(|at| at > due));
        }
        if self.workers[index].hand(task).is_err() {
            self.fault(index);
        }
    }

    /// Marks a worker as faulty, as its memory is corrupt: the worker must not go on.
    fn fault(&mut self, index: usize) {
        let worker = &mut self.workers[index];
        if worker.killed.is_none() {
            // Logged with its death.
            worker.killed = Some(Kill::Fault("its channel was corrupt".into()));
        }
        worker.child.kill();
    }

    /// Dispatches queued tasks as long as workers take them.
    pub(crate) fn refill(&mut self) {
        let clock = Clock::default();
        self.take_back_overtaken(&clock);
        while let Some(task) = self.queue.front() {
            let Some(index) = self.pick(task, &clock) else {
                break;
            };
            if let Some(task) = self.queue.pop_front() {
                self.hand(index, task, &clock);
            }
        }
    }

    /// Returns whether a worker has nothing to do.
    pub(crate) fn has_idle(&self) -> bool {
        self.workers.iter().any(WorkerHandle::is_idle)
    }

    /// Returns the number of idle workers.
    pub(crate) fn idle_count(&self) -> usize {
        let workers = self.workers.iter();
        workers.filter(|worker| worker.is_idle()).count()
    }

    /// Gives an idle worker a share of a busy worker's tasks.
    fn share(&mut self) {
        if !self.pace.is_worth_moving() || !self.queue.is_empty() || !self.has_idle() {
            return;
        }
        let busiest = self.workers.iter_mut().max_by_key(|worker| worker.load());
        if let Some(worker) = busiest.filter(|worker| worker.load() > 1) {
            let taken = worker.take_back(worker.load().div_ceil(2));
            self.requeue(taken);
            self.refill();
        }
    }

    /// Puts tasks that no worker has begun back into the queue, at the places of their order.
    pub(crate) fn requeue(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            task.give_back();
            let place = self
                .queue
                .partition_point(|other| other.order() < task.order());
            self.queue.insert(place, task);
        }
    }

    /// Receives all replies, and dispatches queued tasks.
    pub(crate) fn collect(&mut self) -> Batch {
        let mut batch = Batch::default();
        for index in 0..self.workers.len() {
            self.receive(index, &mut batch);
        }
        if !batch.answers.is_empty() || self.has_started || mem::take(&mut self.has_room) {
            self.refill();
            self.share();
            self.retire();
        }
        batch
    }

    /// Receives the replies of one worker.
    pub(crate) fn receive(&mut self, index: usize, batch: &mut Batch) {
        let worker = &mut self.workers[index];
        if !worker.has_work() || matches!(worker.killed, Some(Kill::Fault(_))) {
            return;
        }
        let mut arrivals = mem::take(&mut self.arrivals);
        let was_clogged = worker.clogged;
        if worker.receive(&mut arrivals, &mut batch.shared).is_err() {
            self.fault(index);
        }
        batch.released.append(&mut self.workers[index].released);
        self.has_room |= was_clogged && !self.workers[index].clogged;
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Answer(answer) => {
                    let mut answer = answer;
                    let items = answer.task.span_items();
                    self.pace.note_duration(answer.nanoseconds, items);
                    let calls = answer.task.items().into();
                    let has_failed = answer.kind == ReplyKind::Failure;
                    self.counts.answered(
                        calls,
                        has_failed,
                        answer.nanoseconds,
                        answer.task.submitted,
                    );
                    self.requeue(mem::take(&mut answer.rest));
                    batch.answers.push(answer);
                }
                Arrival::Ready => self.has_started = true,
                Arrival::Unusable(failure) => self.unusable = Some(failure),
            }
        }
        self.arrivals = arrivals;
    }

    /// Receives the last replies of a worker that has ended.
    pub(crate) fn receive_last(&mut self, index: usize, batch: &mut Batch) {
        self.receive(index, batch);
        let worker = &mut self.workers[index];
        if !matches!(worker.killed, Some(Kill::Fault(_))) {
            let draft = worker.take_draft();
            if let Some(draft) = &draft {
                self.counts.answered(draft.task.items().into(), false, 0, 0);
            }
            batch.answers.extend(draft);
        }
    }

    /// Tells workers to end that have had as many tasks as they may.
    fn retire(&mut self) {
        for worker in &mut self.workers {
            if worker.stage == Stage::Ready && worker.handed >= self.max_tasks && worker.load() == 0
            {
                worker.close();
            }
        }
    }

    /// Returns whether there is something to receive or to write.
    pub(crate) fn has_work(&self) -> bool {
        self.workers.has_work()
    }

    /// Notes that there is something for the supervisor to do.
    pub(crate) fn change(&mut self) -> MustWake {
        self.awake.change()
    }

    /// Notes that the supervisor begins to look.
    pub(crate) fn look(&mut self) {
        self.awake.look();
        self.needs_watch = false;
    }

    /// Puts the supervisor to sleep. Returns false if it must look again instead.
    pub(crate) fn fall_asleep(&mut self) -> bool {
        let is_done = !self.needs_watch && self.late.is_empty() && self.unusable.is_none();
        is_done && self.awake.fall_asleep(&self.workers)
    }

    /// Notes that the supervisor was woken.
    pub(crate) fn wake_up(&mut self) {
        self.awake.wake_up(&self.workers);
    }

    /// Returns whether a waiting thread receives replies.
    pub(crate) fn has_helper(&self) -> bool {
        self.awake.has_helper()
    }

    /// Counts a helper, which begins to receive replies: workers need not wake the supervisor.
    pub(crate) fn enter(&mut self) {
        self.awake.enter(&self.workers);
    }

    /// Uncounts a helper, which ends.
    pub(crate) fn leave(&mut self) -> MustWake {
        self.awake.leave(&self.workers)
    }

    /// Returns a view of the only worker that has tasks, to be watched without the lock.
    pub(crate) fn watch(&self) -> Option<Watch> {
        let mut busy = self.workers.iter().filter(|worker| worker.load() > 0);
        let worker = busy.next()?;
        busy.next().is_none().then(|| worker.watch())
    }

    /// Begins the nap of the only helper, if one worker has tasks and has not replied.
    pub(crate) fn begin_nap(&mut self) -> Option<Arc<FutexPark>> {
        let mut busy = self.workers.iter().filter(|worker| worker.load() > 0);
        let (Some(worker), None) = (busy.next(), busy.next()) else {
            return None;
        };
        if !self.awake.lets_nap() || !self.queue.is_empty() || !worker.lets_nap() {
            return None;
        }
        let nap = worker.begin_nap()?;
        if worker.has_work() {
            worker.set_asleep(false);
            return None;
        }
        Some(self.awake.begin_nap(nap))
    }

    /// Ends the nap, if there is one.
    pub(crate) fn end_nap(&mut self) {
        self.awake.end_nap();
    }

    /// Recalls the tasks that are queued behind long ones. Returns when to look again.
    ///
    /// A worker that has not even begun waits for the CPU. Taking its tasks away helps only if another worker
    /// is idle. The system would then be as slow to let that other worker run. So the pool has more patience
    /// with such a worker.
    pub(crate) fn take_back_stalled(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut taken = Vec::new();
        let is_one_idle = self.has_idle();
        for worker in &mut self.workers {
            if worker.load() < 2 {
                continue;
            }
            let begun = worker.has_begun_first();
            let due = worker.since + if begun { STALL } else { STARVED };
            if due <= now && (begun || is_one_idle) {
                worker.stalled = begun;
                self.pace.lose_trust();
                taken.push(worker.take_back(usize::from(begun)));
                continue;
            }
            // It may begin at any time, and then be at it for long.
            let again = due.clamp(now, now + 4 * STALL);
            next = Some(next.map_or(again, |next| next.min(again)));
        }
        if !taken.is_empty() {
            for taken in taken {
                self.requeue(taken);
            }
            self.refill();
        }
        next
    }

    /// Forgets a task that was cancelled while it was pending: drops its argument, or the whole task if its
    /// permit is needed. Returns the parts to be dropped outside the lock.
    pub(crate) fn forget(&mut self, future: FutureId, as_a_whole: bool) -> Forgotten {
        /// The number of tasks without argument below which the queue is not searched for them.
        const FEW: usize = 64;
        let mut forgotten = Forgotten::default();
        // Most are in the order in which they were made.
        let place = match self.queue.binary_search_by_key(&future, Task::id) {
            Ok(place) => Some(place),
            Err(_) => self.queue.iter().rposition(|task| task.id() == future),
        };
        let Some(place) = place else {
            return forgotten;
        };
        if as_a_whole {
            forgotten.tasks.extend(self.queue.remove(place));
            forgotten.tasks.iter().for_each(Task::note_skipped);
            return forgotten;
        }
        forgotten.content = self.queue.get_mut(place).map(Task::strip);
        self.stripped += 1;
        if self.stripped > FEW && self.stripped > self.queue.len() / 2 {
            self.stripped = 0;
            let queue = mem::take(&mut self.queue).into_iter();
            let (cancelled, queue): (Vec<_>, Vec<_>) = queue.partition(Task::is_cancelled);
            self.queue = queue.into();
            forgotten.tasks = cancelled;
            forgotten.tasks.iter().for_each(Task::note_skipped);
        }
        forgotten
    }

    /// Takes the cancelled tasks out of the queue.
    pub(crate) fn take_cancelled(&mut self) -> Vec<Task> {
        let queue = self.queue.drain(..);
        let (cancelled, queue): (Vec<_>, Vec<_>) = queue.partition(Task::is_cancelled);
        self.queue = queue.into();
        let cancelled = cancelled.into_iter();
        cancelled.filter_map(Task::into_cancelled).collect()
    }

    /// Takes the tasks that are to be cancelled. With `keeps_first`, the first tasks, as many as there are
    /// workers, count as started.
    pub(crate) fn take_unstarted(&mut self, keeps_first: bool) -> Vec<Task> {
        if !keeps_first {
            return self.take_pending(0);
        }
        let is_starting = |worker: &&WorkerHandle| worker.stage == Stage::Starting;
        let kept = self.workers.iter().filter(is_starting).count() + self.starting;
        let mut pending = self.take_pending(1);
        let rest = pending.split_off(kept.min(pending.len()));
        self.queue.extend(pending);
        rest
    }

    /// Takes all queued tasks, and recalls those that no worker has begun, except for `keep` tasks of each
    /// worker.
    pub(crate) fn take_pending(&mut self, keep: usize) -> Vec<Task> {
        for index in 0..self.workers.len() {
            let taken = self.workers[index].take_back(keep);
            self.requeue(taken);
        }
        self.queue.drain(..).collect()
    }
}

impl Streams for Vec<WorkerHandle> {
    fn set_asleep(&self, asleep: bool) {
        for worker in self {
            worker.set_asleep(asleep);
        }
    }

    fn has_work(&self) -> bool {
        self.iter()
            .any(|worker| !matches!(worker.killed, Some(Kill::Fault(_))) && worker.has_work())
    }
}
