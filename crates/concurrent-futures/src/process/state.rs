//! The state of a pool: its queue, its workers, and who gets what.
//!
//! # Hand-ahead
//! A worker that has a task is handed further ones only as long as tasks are short: so many
//! that it is busy for some tenths of a millisecond, which is longer than it takes the
//! supervisor to wake and hand over more. If a task takes longer than expected, what is
//! queued behind it is taken back, and goes to the worker that is free first. A task with a time
//! limit has its worker to itself, so that the limit counts its own time.
//!
//! # Order
//! Tasks start in the order in which they were submitted, as a later one may wait for what an
//! earlier one does. The queue is sorted by [`Task::order`]. Only hand-ahead can break the order: a
//! task stands behind a long one, and later tasks start elsewhere. So
//! 1. nothing is handed to a worker whose task has run for longer than tasks usually do
//!    ([`State::patience`]);
//! 2. before a task is handed over, the tasks that stand behind such a long one are taken back, and
//!    with them all later ones that no worker has begun.
//!
//! 3. tasks are handed to busy workers only after [`TRUST`] short tasks in a row.
//!
//! A task can therefore be overtaken only when a long task comes right after many short ones, by
//! tasks that are submitted within some tenths of a millisecond.

#![forbid(unsafe_code)]

use super::awake::{Awake, Ring, Streams};
use super::channel::{Attachment, Nap, ReplyKind, Watch};
use super::codec::Bytes;
use super::deliver::Delivery;
use super::member::{Answer, Arrival, Content, Kill, Member, Stage};
use super::task::{Ending, Start, Stripped, Task};
use crate::error::{BrokenExecutor, SubmitError, TaskError};
use crate::future::FutureId;
use std::cell::LazyCell;
use std::collections::VecDeque;
use std::mem;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long a worker shall be busy with items of a span, in nanoseconds.
const SPAN: u64 = 400_000;
/// After so many parts of spans that took as long as expected, the next ones are twice as long.
const STEADY: u32 = 4;
/// How long a worker shall be busy with what it was handed, in nanoseconds.
const AHEAD: u64 = 200_000;
/// Tasks that take longer are handed to idle workers only, in nanoseconds.
const LONG: u64 = 2_000_000;
/// The most tasks that a worker has.
const MOST: u64 = 512;
/// After this many short tasks in a row, tasks are handed to workers that are busy.
const TRUST: u32 = 16;
/// After this time, nothing stays queued behind a task.
pub(super) const STALL: Duration = Duration::from_millis(1);
/// After this time, nothing stays with a worker that has not begun if another is idle.
const STARVED: Duration = Duration::from_millis(20);
/// Longer arguments are written behind one task at most.
const SHORT: usize = 32 * 1024;
/// Tasks that take longer than this are worth moving to an idle worker, in nanoseconds.
const WORTH_MOVING: u64 = 20_000;

#[expect(clippy::struct_excessive_bools, reason = "each is a fact of its own")]
pub(super) struct State {
    /// Pending tasks, the first to be started first.
    pub(super) queue: VecDeque<Task>,
    pub(super) members: Vec<Member>,
    /// How many workers the pool has come to need.
    pub(super) wanted: usize,
    pub(super) max_workers: usize,
    pub(super) max_tasks: usize,
    /// Whether tasks are accepted.
    pub(super) open: bool,
    /// Whether tasks that no worker has begun are cancelled.
    pub(super) cancelling: bool,
    pub(super) broken: Option<BrokenExecutor>,
    /// Why a worker says that none can work: the bytes of the failure.
    pub(super) unusable: Option<Vec<u8>>,
    /// Whether a worker has become able to work since the supervisor looked.
    pub(super) has_started: bool,
    /// Whether a worker's stream has got room for a task again.
    has_room: bool,
    /// Who receives what workers send.
    awake: Awake,
    /// When the supervisor will look at the time at the latest.
    pub(super) watched: Option<Instant>,
    /// Whether that is too late for what was handed over since.
    pub(super) needs_watch: bool,
    /// Tasks that have ended, and are to be finished by the supervisor.
    pub(super) late: Vec<Task>,
    /// How many tasks of the queue, at most, were cancelled and have lost their argument.
    stripped: usize,
    /// How many workers other threads than the supervisor are starting.
    pub(super) starting: usize,
    /// The supervisor has ended.
    pub(super) ended: bool,
    /// How long tasks take, in nanoseconds; 0 while unknown.
    typical: u64,
    /// The same for an item of a span.
    typical_item: u64,
    /// How many parts of spans in a row took as long as expected.
    steady: u32,
    /// The number of short tasks that have ended in a row.
    trust: u32,
    /// The number of the next task that comes.
    next_sequence: u64,
    arrivals: Vec<Arrival>,
}

/// Arguments and tasks that were cancelled, to be dropped.
#[derive(Debug, Default)]
pub(super) struct Forgotten {
    content: Option<Stripped>,
    tasks: Vec<Task>,
}

/// Answers on their way to their futures.
#[derive(Debug, Default)]
pub(super) struct Batch {
    answers: Vec<Answer>,
    shared: Vec<u8>,
    /// Segments that workers do not use any more. To unmap one takes time.
    released: Vec<Arc<Attachment>>,
}

impl State {
    pub(super) fn new(max_workers: usize, max_tasks: usize) -> Self {
        Self {
            queue: VecDeque::new(),
            members: Vec::new(),
            wanted: 0,
            max_workers,
            max_tasks,
            open: true,
            cancelling: false,
            broken: None,
            unusable: None,
            has_started: false,
            has_room: false,
            awake: Awake::default(),
            watched: None,
            needs_watch: false,
            late: Vec::new(),
            stripped: 0,
            starting: 0,
            ended: false,
            typical: 0,
            typical_item: 0,
            steady: 0,
            trust: 0,
            next_sequence: 0,
            arrivals: Vec::new(),
        }
    }

    /// Why tasks are not accepted, if they are not.
    pub(super) fn refusal(&self) -> Option<SubmitError> {
        if self.open {
            return None;
        }
        Some(match &self.broken {
            Some(broken) => SubmitError::Broken(broken.clone()),
            None => SubmitError::Shutdown,
        })
    }

    /// Adds a worker that was started.
    pub(super) fn add_member(&mut self, mut member: Member) {
        // Tasks that count as started are in the queue, for the workers that were on their way.
        let is_cancelled = !self.open && self.cancelling && self.queue.is_empty();
        if self.broken.is_some() || is_cancelled {
            // Its end is no failure.
            member.stage = Stage::Closing;
            member.child.kill();
        }
        if self.awake.needs_wake_ups() {
            member.set_asleep(true);
        }
        self.members.push(member);
    }

    /// How many tasks a worker may have.
    fn credit(&self) -> usize {
        if self.trust < TRUST {
            return 1;
        }
        match self.typical {
            0 | LONG.. => 1,
            nanoseconds => usize::try_from((AHEAD / nanoseconds).clamp(2, MOST)).unwrap_or(1),
        }
    }

    /// Notes how long a task took, and for how many items of a span that was.
    fn note_duration(&mut self, nanoseconds: u64, items: Option<u32>) {
        let nanoseconds = nanoseconds.clamp(1, 1 << 40);
        self.trust = if nanoseconds < LONG {
            self.trust.saturating_add(items.unwrap_or(1))
        } else {
            0
        };
        if let Some(items) = items {
            let item = (nanoseconds / u64::from(items.max(1))).max(1);
            self.typical_item = match self.typical_item {
                0 => item,
                typical => typical.midpoint(item),
            };
            // Trust grows slowly, and is lost at once: short items must not wait behind long ones.
            self.steady = if nanoseconds > 4 * SPAN {
                0
            } else {
                self.steady + 1
            };
        }
        self.typical = match self.typical {
            0 => nanoseconds,
            // One that lost its CPU in the middle says nothing about the others.
            typical => (typical * 7 + nanoseconds.min(typical.saturating_mul(64))) / 8,
        }
        .max(1);
    }

    /// The worker that is to have a task, if there is one now.
    fn pick(&self, task: &Task) -> Option<usize> {
        let credit = self.credit();
        // One that is not is worth to be there when the worker is done with what it has.
        let is_light = task.attachment.is_none() && task.most_bytes() <= SHORT;
        // Few of many items are worth a message to nobody who has something to do.
        let is_enough = task
            .growing()
            .is_none_or(|items| items >= self.worthwhile_items() / 4);
        let now = LazyCell::new(Instant::now);
        let patience = self.patience();
        let mut best = None;
        for (index, member) in self.members.iter().enumerate() {
            if !member.takes_tasks() || member.handed >= self.max_tasks {
                continue;
            }
            let load = member.load();
            if load == 0 {
                return Some(index);
            }
            let can_wait = load < credit
                && !member.stalled
                && task.options.time_limit.is_none()
                && member
                    .current()
                    .is_none_or(|task| task.options.time_limit.is_none())
                && is_enough
                && (is_light || load == 1)
                && member.has_room_for_task(task);
            if can_wait
                && best.is_none_or(|(_, least)| load < least)
                && !member.is_long_at_first(*now, patience)
            {
                best = Some((index, load));
            }
        }
        best.map(|(index, _)| index)
    }

    /// Takes a new task: hands it over, or queues it. Returns whether a worker should be
    /// started.
    pub(super) fn accept(&mut self, mut task: Task) -> bool {
        task.sequence = self.next_sequence;
        self.next_sequence += 1;
        if self.queue.is_empty() && self.take_back_overtaken() {
            self.refill();
        }
        let mut is_queued = true;
        if self.queue.is_empty()
            && let Some(index) = self.pick(&task)
        {
            is_queued = self.members[index].load() > 0;
            self.hand(index, task);
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

    /// How long a task may run before it is a long one.
    fn patience(&self) -> Duration {
        Duration::from_nanos((2 * self.typical).max(AHEAD)).min(STALL)
    }

    /// Takes back the tasks that stand behind a long one, and all later ones that no worker has
    /// begun. Returns whether there were any.
    fn take_back_overtaken(&mut self) -> bool {
        let now = LazyCell::new(Instant::now);
        let patience = self.patience();
        let mut taken = Vec::new();
        for member in &mut self.members {
            if member.load() >= 2 && member.is_long_at_first(*now, patience) {
                member.stalled = true;
                self.trust = 0;
                taken.append(&mut member.take_back(1));
            }
        }
        let Some(first) = taken.iter().map(Task::order).min() else {
            return false;
        };
        for member in &mut self.members {
            taken.append(&mut member.take_back_after(first));
        }
        self.requeue(taken);
        true
    }

    /// Counts one more worker, if those that are on their way are not enough.
    fn wants_another(&mut self) -> bool {
        if self.wanted >= self.max_workers {
            return false;
        }
        let ready = |member: &&Member| member.stage == Stage::Ready;
        let starting = self
            .wanted
            .saturating_sub(self.members.iter().filter(ready).count());
        if starting > 0 && self.queue.len() <= starting {
            return false;
        }
        self.wanted += 1;
        true
    }

    /// How many items of a span a worker is to have at a time.
    fn worthwhile_items(&self) -> u32 {
        let items = match self.typical_item {
            0 => 1,
            nanoseconds => u32::try_from(SPAN / nanoseconds).unwrap_or(u32::MAX).max(1),
        };
        items.min(1 << (self.steady / STEADY).min(20))
    }

    /// Hands a task over, unless it was cancelled. What is worth it of a span: the rest is the
    /// next to be handed over.
    fn hand(&mut self, index: usize, mut task: Task) {
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
            let left = self.max_tasks - self.members[index].handed;
            let left = u32::try_from(left).unwrap_or(u32::MAX);
            if let Some(rest) = task.cut(self.worthwhile_items().min(left)) {
                self.queue.push_front(rest);
            }
        }
        let limit = match (task.options.time_limit, self.members[index].load()) {
            (Some(limit), _) => Some(limit),
            // Something will be queued behind a task that may take long. The time need not
            // be exact, and the supervisor is not woken for each of these.
            (None, 1..) => Some(2 * STALL),
            (None, 0) => None,
        };
        if let Some(limit) = limit {
            let due = Instant::now().checked_add(limit);
            self.needs_watch |= due.is_some_and(|due| self.watched.is_none_or(|at| at > due));
        }
        if self.members[index].hand(task).is_err() {
            self.fault(index);
        }
    }

    /// The memory of a worker is corrupt: it must not go on.
    fn fault(&mut self, index: usize) {
        let member = &mut self.members[index];
        if member.killed.is_none() {
            // Logged with its death.
            member.killed = Some(Kill::Fault("its channel was corrupt".into()));
        }
        member.child.kill();
    }

    /// Hands over what can be.
    pub(super) fn refill(&mut self) {
        self.take_back_overtaken();
        while let Some(task) = self.queue.front() {
            let Some(index) = self.pick(task) else {
                break;
            };
            if let Some(task) = self.queue.pop_front() {
                self.hand(index, task);
            }
        }
    }

    /// Whether a worker has nothing to do.
    pub(super) fn has_idle(&self) -> bool {
        self.members.iter().any(Member::is_idle)
    }

    /// How many workers have nothing to do.
    pub(super) fn idle_count(&self) -> usize {
        let members = self.members.iter();
        members.filter(|member| member.is_idle()).count()
    }

    /// Gives an idle worker a share of what a busy one has.
    fn share(&mut self) {
        if self.typical < WORTH_MOVING || !self.queue.is_empty() || !self.has_idle() {
            return;
        }
        let busiest = self.members.iter_mut().max_by_key(|member| member.load());
        if let Some(member) = busiest.filter(|member| member.load() > 1) {
            let taken = member.take_back(member.load().div_ceil(2));
            self.requeue(taken);
            self.refill();
        }
    }

    /// Puts tasks that no worker has begun back into the queue, where their order places them.
    pub(super) fn requeue(&mut self, tasks: Vec<Task>) {
        for task in tasks {
            task.give_back();
            let place = self
                .queue
                .partition_point(|other| other.order() < task.order());
            self.queue.insert(place, task);
        }
    }

    /// Receives what has come, and hands over what can be.
    pub(super) fn collect(&mut self) -> Batch {
        let mut batch = Batch::default();
        for index in 0..self.members.len() {
            self.receive(index, &mut batch);
        }
        if !batch.answers.is_empty() || self.has_started || mem::take(&mut self.has_room) {
            self.refill();
            self.share();
            self.retire();
        }
        batch
    }

    /// Receives what has come from one worker.
    pub(super) fn receive(&mut self, index: usize, batch: &mut Batch) {
        let member = &mut self.members[index];
        if !member.has_work() || matches!(member.killed, Some(Kill::Fault(_))) {
            return;
        }
        let mut arrivals = mem::take(&mut self.arrivals);
        let was_clogged = member.clogged;
        if member.receive(&mut arrivals, &mut batch.shared).is_err() {
            self.fault(index);
        }
        batch.released.append(&mut self.members[index].released);
        self.has_room |= was_clogged && !self.members[index].clogged;
        for arrival in arrivals.drain(..) {
            match arrival {
                Arrival::Answer(answer) => {
                    let mut answer = answer;
                    let items = answer.task.span_items();
                    self.note_duration(answer.nanoseconds, items);
                    self.requeue(mem::take(&mut answer.rest));
                    batch.answers.push(answer);
                }
                Arrival::Ready => self.has_started = true,
                Arrival::Unusable(failure) => self.unusable = Some(failure),
            }
        }
        self.arrivals = arrivals;
    }

    /// Receives what a worker has left that has ended.
    pub(super) fn receive_last(&mut self, index: usize, batch: &mut Batch) {
        self.receive(index, batch);
        let member = &mut self.members[index];
        if !matches!(member.killed, Some(Kill::Fault(_))) {
            batch.answers.extend(member.take_draft());
        }
    }

    /// Tells workers that have had all the tasks that they may have to end.
    fn retire(&mut self) {
        for member in &mut self.members {
            if member.stage == Stage::Ready && member.handed >= self.max_tasks && member.load() == 0
            {
                member.close();
            }
        }
    }

    /// Whether there is something to receive or to write.
    pub(super) fn has_work(&self) -> bool {
        self.members.has_work()
    }

    /// There is something for the supervisor to do.
    pub(super) fn change(&mut self) -> Ring {
        self.awake.change()
    }

    /// The supervisor begins to look.
    pub(super) fn look(&mut self) {
        self.awake.look();
        self.needs_watch = false;
    }

    /// The supervisor is about to sleep. False if it must look again instead.
    pub(super) fn fall_asleep(&mut self) -> bool {
        let is_done = !self.needs_watch && self.late.is_empty() && self.unusable.is_none();
        is_done && self.awake.fall_asleep(&self.members)
    }

    /// The supervisor was woken.
    pub(super) fn wake_up(&mut self) {
        self.awake.wake_up(&self.members);
    }

    /// Whether a thread that waits receives answers.
    pub(super) fn has_helper(&self) -> bool {
        self.awake.has_helper()
    }

    /// A thread that waits begins to receive answers: workers need not wake anybody.
    pub(super) fn enter(&mut self) {
        self.awake.enter(&self.members);
    }

    /// It ends.
    pub(super) fn leave(&mut self) -> Ring {
        self.awake.leave(&self.members)
    }

    /// The only worker that has tasks, to be watched without the lock.
    pub(super) fn watch(&self) -> Option<Watch> {
        let mut busy = self.members.iter().filter(|member| member.load() > 0);
        let member = busy.next()?;
        busy.next().is_none().then(|| member.watch())
    }

    /// Begins the nap of the only thread that receives answers, if one worker has tasks,
    /// and nothing of it has come.
    pub(super) fn begin_nap(&mut self) -> Option<Arc<Nap>> {
        let mut busy = self.members.iter().filter(|member| member.load() > 0);
        let (Some(member), None) = (busy.next(), busy.next()) else {
            return None;
        };
        if !self.awake.lets_nap() || !self.queue.is_empty() || !member.lets_nap() {
            return None;
        }
        let nap = member.begin_nap();
        if member.has_work() {
            member.set_asleep(false);
            return None;
        }
        Some(self.awake.begin_nap(nap))
    }

    /// Ends it.
    pub(super) fn end_nap(&mut self) {
        self.awake.end_nap();
    }

    /// Takes back what is queued behind tasks that take long. Returns when to look again.
    ///
    /// A worker that has not even begun waits for the CPU. To take from it what it will do in
    /// no time once it has got it helps only if another worker is idle, and the system
    /// would then be as slow to let that one run: so there is more patience.
    pub(super) fn take_back_stalled(&mut self, now: Instant) -> Option<Instant> {
        let mut next: Option<Instant> = None;
        let mut taken = Vec::new();
        let is_one_idle = self.has_idle();
        for member in &mut self.members {
            if member.load() < 2 {
                continue;
            }
            let begun = member.has_begun_first();
            let due = member.since + if begun { STALL } else { STARVED };
            if due <= now && (begun || is_one_idle) {
                member.stalled = begun;
                self.trust = 0;
                taken.push(member.take_back(usize::from(begun)));
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

    /// Forgets a task that was cancelled while it was pending: its argument, or all of it if its place
    /// is needed. Returns what is to be dropped outside the lock.
    pub(super) fn forget(&mut self, future: FutureId, as_a_whole: bool) -> Forgotten {
        /// Fewer that have lost their argument are not worth a look at all.
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
        }
        forgotten
    }

    /// Takes those out of the queue that were cancelled.
    pub(super) fn take_cancelled(&mut self) -> Vec<Task> {
        let queue = self.queue.drain(..);
        let (cancelled, queue): (Vec<_>, Vec<_>) = queue.partition(Task::is_cancelled);
        self.queue = queue.into();
        let cancelled = cancelled.into_iter();
        cancelled.filter_map(Task::into_cancelled).collect()
    }

    /// Takes what is to be cancelled. If `keeps_first`, the first tasks, as many as there are
    /// workers, count as started.
    pub(super) fn take_unstarted(&mut self, keeps_first: bool) -> Vec<Task> {
        if !keeps_first {
            return self.take_pending(0);
        }
        let is_starting = |member: &&Member| member.stage == Stage::Starting;
        let kept = self.members.iter().filter(is_starting).count() + self.starting;
        let mut pending = self.take_pending(1);
        let rest = pending.split_off(kept.min(pending.len()));
        self.queue.extend(pending);
        rest
    }

    /// Takes back what no worker has begun, but for `keep` tasks of each, and all that is
    /// queued.
    pub(super) fn take_pending(&mut self, keep: usize) -> Vec<Task> {
        for index in 0..self.members.len() {
            let taken = self.members[index].take_back(keep);
            self.requeue(taken);
        }
        self.queue.drain(..).collect()
    }
}

impl Streams for Vec<Member> {
    fn set_asleep(&self, asleep: bool) {
        for member in self {
            member.set_asleep(asleep);
        }
    }

    fn has_work(&self) -> bool {
        self.iter()
            .any(|member| !matches!(member.killed, Some(Kill::Fault(_))) && member.has_work())
    }
}

impl Batch {
    pub(super) fn is_empty(&self) -> bool {
        self.answers.is_empty()
    }

    /// Takes those answers out whose value only foreign code can make; see `deliver.rs`.
    pub(super) fn take_foreign(&mut self) -> Vec<Delivery> {
        // An error is made by code of ours.
        let is_plain = |answer: &Answer| answer.task.is_plain() || answer.kind != ReplyKind::Value;
        if self.answers.iter().all(is_plain) {
            return Vec::new();
        }
        let answers = mem::take(&mut self.answers).into_iter();
        let (plain, foreign): (Vec<_>, Vec<_>) = answers.partition(is_plain);
        self.answers = plain;
        let delivery = |answer: Answer| Delivery {
            task: answer.task,
            kind: answer.kind,
            bytes: match answer.content {
                Content::Shared(place) => self.shared[place].to_vec(),
                Content::Own(bytes) => bytes,
            },
            attachment: answer.attachment.map(|attachment| *attachment),
        };
        foreign.into_iter().map(delivery).collect()
    }

    /// Ends the tasks. Returns those that somebody waits for, or that have callbacks, which
    /// are to be finished.
    pub(super) fn end(self) -> Vec<Task> {
        let mut late = Vec::new();
        drop(self.released);
        let shared = self.shared;
        for answer in self.answers {
            let bytes = match answer.content {
                Content::Shared(place) => Bytes::Borrowed(&shared[place]),
                Content::Own(bytes) => Bytes::Owned(bytes),
            };
            let ending = match answer.kind {
                ReplyKind::Value => {
                    Ending::Value(bytes, answer.attachment.map(|attachment| *attachment))
                }
                _ => Ending::Failure(bytes),
            };
            late.extend(answer.task.end(ending));
        }
        late
    }
}
