//! The recorder of the process: the switch, and the functions that the engine calls at events.
//!
//! # Protocol
//! `EPOCH` is 0 while nothing is recorded: then an event costs one relaxed load. Otherwise it is the number of the
//! session. A thread that sees another number than that of its lane asks for the session, under a lock, and gets a
//! lane. All recordings of a process share the session. Each one knows where it began in the lanes, and what it
//! reads from there.
//!
//! The child of a fork records nothing: the number is 0 there before any code of the child runs. The lock of the
//! session is held across a fork, so that the child finds it free.

#![forbid(unsafe_code)]

use crate::id::FutureId;
use crate::recording::record::{KINDS, Kind, Record, Run, RunOutcome, WORDS};
use crate::recording::session::{Entry, PoolInfo, Session, WorkerEnd, WorkerInfo};
use crate::recording::times::{Clock, later};
use crate::runtime::os::clock::now;
#[cfg(all(feature = "process", unix))]
use crate::runtime::os::fork;
use std::cell::{Cell, RefCell};
#[cfg(all(feature = "process", unix))]
use std::sync::Once;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// The number of the session; 0 while nothing is recorded.
static EPOCH: AtomicU64 = AtomicU64::new(0);

/// The session, and the number of recordings that use it.
struct Running {
    session: Option<Arc<Session>>,
    users: usize,
    epochs: u64,
    /// The name of the program, where a frontend knows it.
    program: Option<String>,
}

static RUNNING: Mutex<Running> = Mutex::new(Running {
    session: None,
    users: 0,
    epochs: 0,
    program: None,
});

fn running() -> MutexGuard<'static, Running> {
    RUNNING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Returns whether anything is recorded.
#[inline]
pub fn is_on() -> bool {
    epoch() != 0
}

/// Returns the number of the session; 0 while nothing is recorded.
#[inline]
pub fn epoch() -> u64 {
    // ORDERING: Relaxed: a thread that sees the number asks for the session under the lock.
    EPOCH.load(Ordering::Relaxed)
}

/// Sets the name of the program that recordings show; by default it is that of the executable.
#[allow(dead_code, unreachable_pub, reason = "other frontends use it")]
pub fn set_program(name: String) {
    #[cfg(all(feature = "process", unix))]
    guard_forks();
    let former = running().program.replace(name);
    drop(former);
}

#[cfg(feature = "recording")]
/// Returns the name of the program, if a frontend has set it.
pub(super) fn program() -> Option<String> {
    running().program.clone()
}

/// Begins a session, or joins the one that there is.
pub(crate) fn join(records: usize) -> Arc<Session> {
    #[cfg(all(feature = "process", unix))]
    guard_forks();
    let mut running = running();
    running.users += 1;
    if let Some(session) = &running.session {
        return Arc::clone(session);
    }
    running.epochs += 1;
    let session = Arc::new(Session::new(running.epochs, records));
    running.session = Some(Arc::clone(&session));
    // ORDERING: Relaxed, here and below: see `epoch`.
    EPOCH.store(session.epoch, Ordering::Relaxed);
    session
}

/// Leaves a session, which ends with its last user.
pub(crate) fn leave(session: &Arc<Session>) {
    let mut running = running();
    let is_ours = |other: &Arc<Session>| Arc::ptr_eq(other, session);
    // A fork has forgotten it.
    if !running.session.as_ref().is_some_and(is_ours) {
        return;
    }
    running.users -= 1;
    if running.users == 0 {
        EPOCH.store(0, Ordering::Relaxed);
        running.session = None;
    }
}

/// Keeps the session's lock across forks, so that no other thread holds the lock meanwhile. The child forgets the
/// session, whose threads and lanes are the parent's.
#[cfg(all(feature = "process", unix))]
fn guard_forks() {
    thread_local! {
        static HELD: RefCell<Option<MutexGuard<'static, Running>>> = const { RefCell::new(None) };
    }
    extern "C" fn before() {
        // Without access, the thread is ending, and so is its fork.
        let _ = HELD.try_with(|held| held.replace(Some(running())));
    }
    extern "C" fn in_parent() {
        drop(HELD.try_with(RefCell::take));
    }
    extern "C" fn in_child() {
        EPOCH.store(0, Ordering::Relaxed);
        if let Ok(Some(mut running)) = HELD.try_with(RefCell::take) {
            running.users = 0;
            // Another thread may have held a lock in there.
            std::mem::forget(running.session.take());
        }
    }
    static ONCE: Once = Once::new();
    ONCE.call_once(|| fork::around(Some(before), Some(in_parent), Some(in_child)));
}

/// The calling thread's part of a session.
struct Local {
    /// The number of the session.
    epoch: u64,
    session: Arc<Session>,
    entry: Arc<Entry>,
    clock: Clock,
    /// Names that were looked up lately, by their keys.
    names: [(usize, u32); NAMES],
    /// The name and the error of the running task, as the frontend has noted them.
    name: u32,
    error: u32,
    /// The run that has begun.
    run: Run,
}

const NAMES: usize = 64;

impl Drop for Local {
    fn drop(&mut self) {
        self.entry.buffer.current.set(&[0; WORDS]);
        self.entry.give_back();
    }
}

thread_local! {
    static LOCAL: RefCell<Option<Box<Local>>> = const { RefCell::new(None) };
    /// The label of the tasks that the thread submits.
    static LABEL: RefCell<Option<Arc<str>>> = const { RefCell::new(None) };
    static HAS_LABEL: Cell<bool> = const { Cell::new(false) };
}

/// Calls `f` with the thread's part of the session, if something is recorded.
#[inline]
fn with_local<R>(f: impl FnOnce(&mut Local) -> R) -> Option<R> {
    let epoch = epoch();
    if epoch == 0 {
        return None;
    }
    // Without access, the thread is ending.
    let access = LOCAL.try_with(|local| {
        let mut local = local.try_borrow_mut().ok()?;
        if local.as_ref().is_none_or(|local| local.epoch != epoch) {
            *local = enter();
        }
        local.as_deref_mut().map(f)
    });
    access.ok().flatten()
}

#[cold]
fn enter() -> Option<Box<Local>> {
    let session = Arc::clone(running().session.as_ref()?);
    let entry = session.enter();
    Some(Box::new(Local {
        epoch: session.epoch,
        clock: Clock::new(&session.times),
        session,
        entry,
        names: [(0, 0); NAMES],
        name: 0,
        error: 0,
        run: Run::default(),
    }))
}

impl Local {
    /// Returns the stamp of this moment, for a cause: see [`Clock::stamp`].
    #[inline]
    fn stamp(&mut self) -> u64 {
        self.clock.stamp(&self.session.times)
    }

    /// Returns the stamp of this moment, for an effect: see [`Clock::stamp_behind`].
    #[inline]
    fn stamp_behind(&mut self) -> u64 {
        self.clock.stamp_behind(&self.session.times)
    }

    #[inline]
    fn push(&self, record: &Record) {
        self.entry.buffer.push(record);
    }

    /// Replaces the record of what the thread is doing.
    #[inline]
    fn set_current(&self, record: &Record) {
        self.entry.buffer.current.set(&record.encode());
    }

    /// Returns the index of a name. The key stands for the name as long as the session runs.
    fn name(&mut self, key: usize, make: impl FnOnce() -> String) -> u32 {
        // Addresses are multiples of 8 or 16.
        let place = (key >> 4 ^ key >> 10) % NAMES;
        match self.names[place] {
            (known, index) if known == key && key != 0 => index,
            _ => {
                let index = self.session.tables().intern(&make());
                self.names[place] = (key, index);
                index
            }
        }
    }

    fn label(&self) -> u32 {
        if !HAS_LABEL.get() {
            return 0;
        }
        LABEL.with_borrow(|label| {
            let text = label.as_deref();
            text.map_or(0, |text| self.session.tables().intern(text))
        })
    }
}

/// Returns the beginning of an error's text.
pub(crate) fn cut(text: &str) -> &str {
    /// The longest text of an error, in characters.
    const LONGEST: usize = 300;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => &text[..end],
        None => text,
    }
}

/// The name of a function.
#[derive(Clone, Copy, Debug)]
pub enum Name {
    /// A name that the program has from its beginning.
    Static(&'static str),
    /// An index that [`name`] has returned.
    Index(u32),
}

impl Name {
    fn index(self, local: &mut Local) -> u32 {
        match self {
            Self::Static(text) => {
                let key = text.as_ptr().addr() ^ text.len().rotate_right(16);
                local.name(key, || text.to_owned())
            }
            Self::Index(index) => index,
        }
    }
}

/// Returns the index of the name that a key stands for; `make` makes it if the thread does not know it.
/// The key, an address, must stand for that name as long as something is recorded. 0 stands for no name.
pub fn name(key: usize, make: impl FnOnce() -> String) -> u32 {
    with_local(|local| local.name(key, make)).unwrap_or(0)
}

/// Returns the index of a text.
pub fn text(text: &str) -> u32 {
    with_local(|local| local.session.tables().intern(text)).unwrap_or(0)
}

/// Returns the length up to which arguments are to be shown; 0 if they are not.
pub fn argument_length() -> usize {
    // ORDERING: Relaxed, as only the number matters.
    let length = with_local(|local| local.session.argument_length.load(Ordering::Relaxed));
    usize::try_from(length.unwrap_or(0)).unwrap_or(usize::MAX)
}

/// Calls `f`; tasks that the calling thread submits meanwhile have a label in recordings.
///
/// # Panics
/// If `f` panics. The thread has its former label again by then.
///
/// # Examples
/// ```
/// use concurrent_futures::{ThreadPoolExecutor, with_label};
///
/// let pool = ThreadPoolExecutor::new()?;
/// let page = with_label("page 1", || pool.spawn(|| 42))?;
/// assert_eq!(page.result()?, 42);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub fn with_label<R>(label: &str, f: impl FnOnce() -> R) -> R {
    /// Restores the label of before.
    struct Restore(Option<Arc<str>>);
    impl Drop for Restore {
        fn drop(&mut self) {
            let before = self.0.take();
            HAS_LABEL.set(before.is_some());
            LABEL.set(before);
        }
    }
    if !is_on() {
        return f();
    }
    let _restore = Restore(LABEL.replace(Some(label.into())));
    HAS_LABEL.set(true);
    f()
}

/// Records that a task was submitted. `label` and `arguments` are indices that [`text`] has returned.
#[inline(never)]
pub fn submitted_with(task: FutureId, pool: u32, name: Name, label: u32, arguments: u32) {
    with_local(|local| {
        let label = if label == 0 { local.label() } else { label };
        let record = Record {
            start: local.stamp(),
            end: local.run.task,
            name: name.index(local),
            pool,
            text: label,
            arguments,
            ..Record::new(Kind::Submit, task.number())
        };
        local.push(&record);
    });
}

/// Records that a task was submitted.
pub(crate) fn submitted(task: FutureId, pool: u32, name: &'static str) {
    submitted_with(task, pool, Name::Static(name), 0, 0);
}

/// Notes the name of the running task.
pub fn note_name(index: u32) {
    with_local(|local| local.name = index);
}

/// Notes the error of the running task.
pub fn note_error(text: &str) {
    with_local(|local| local.error = local.session.tables().intern(cut(text)));
}

/// A task that a thread is running.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Begun(u64);

/// Notes that the calling thread begins to run a task.
#[inline(never)]
pub(crate) fn begin(task: FutureId, pool: u32, worker: u32) -> Option<Begun> {
    with_local(|local| {
        // The stamp may be some hundredths of a microsecond early, and so before that of the submitter: see `snapshot.rs`.
        let start = local.stamp();
        (local.name, local.error) = (0, 0);
        let task = task.number();
        local.run = Run {
            start,
            task,
            pool,
            worker,
        };
        local.set_current(&local.run.record());
        Begun(start)
    })
}

/// Records that the calling thread has run a task.
#[inline(never)]
pub(crate) fn end(
    begun: Begun,
    name: Option<&'static str>,
    outcome: RunOutcome,
    error: Option<&str>,
) {
    let Begun(start) = begun;
    with_local(|local| {
        if local.run.start != start {
            // The recording began in the middle.
            return;
        }
        if let Some(error) = error {
            local.error = local.session.tables().intern(cut(error));
        }
        let name = match name {
            Some(name) => Name::Static(name).index(local),
            None => local.name,
        };
        let run = Record {
            end: later(start, local.stamp()),
            outcome,
            name,
            text: local.error,
            ..local.run.record()
        };
        local.push(&run);
        local.run = Run::default();
        local.entry.buffer.current.set_word(KINDS, 0);
    });
}

/// A worker's wait that is recorded.
#[derive(Debug)]
pub(crate) struct Waiting {
    start: u64,
    waiter: u64,
    awaited: u64,
}

impl Waiting {
    /// Notes that a task begins to wait for another task, or for something else.
    #[cold]
    pub(crate) fn begin(waiter: FutureId, awaited: Option<FutureId>) -> Option<Self> {
        with_local(|local| {
            let start = local.stamp();
            let awaited = awaited.map_or(0, FutureId::number);
            local.set_current(&local.run.waiting(start, awaited));
            Self {
                start,
                waiter: waiter.number(),
                awaited,
            }
        })
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        with_local(|local| {
            local.set_current(&local.run.record());
            let end = later(self.start, local.stamp_behind());
            local.push(&Record {
                start: self.start,
                end,
                items: self.awaited,
                ..Record::new(Kind::Wait, self.waiter)
            });
        });
    }
}

/// Records the run of a task in another process, with the name of its function if that is known.
#[cold]
pub(crate) fn ran(record: &Record, name: Option<&'static str>) {
    with_local(|local| {
        let name = name.map_or(record.name, |name| Name::Static(name).index(local));
        local.push(&Record { name, ..*record });
    });
}

/// Records an event of a task that did not run here, at this moment.
#[cold]
fn happened(kind: Kind, task: FutureId, outcome: RunOutcome) {
    with_local(|local| {
        let record = Record {
            start: local.stamp(),
            outcome,
            ..Record::new(kind, task.number())
        };
        local.push(&record);
    });
}

/// Records that a pending task was cancelled.
#[inline]
pub(crate) fn cancelled(task: FutureId) {
    if is_on() {
        happened(Kind::Cancel, task, RunOutcome::Cancelled);
    }
}

/// Records that a task failed without being started.
#[inline]
pub fn rejected(task: FutureId, outcome: RunOutcome) {
    if is_on() {
        happened(Kind::Reject, task, outcome);
    }
}

/// Records that a task is to run again.
#[inline]
pub(crate) fn retried(task: FutureId) {
    if is_on() {
        happened(Kind::Retry, task, RunOutcome::Pending);
    }
}

/// Records how long the call of a task was pickled, and how many bytes came of it.
pub fn pickled(task: FutureId, start: u64, bytes: usize) {
    with_local(|local| {
        local.push(&Record {
            start,
            end: now(),
            sent: u32::try_from(bytes).unwrap_or(u32::MAX),
            ..Record::new(Kind::Pickle, task.number())
        });
    });
}

/// Returns the next number of a pool or a worker.
pub(crate) fn next_number() -> u32 {
    static NUMBERS: AtomicU32 = AtomicU32::new(1);
    // ORDERING: Relaxed, as only the number matters.
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// Describes a pool, unless the session knows it. `known` is the session to which it was described last.
#[cold]
pub(crate) fn describe_pool(known: &AtomicU64, info: impl FnOnce() -> PoolInfo) {
    with_local(|local| {
        // ORDERING: Relaxed: describing it twice does no harm.
        if known.swap(local.session.epoch, Ordering::Relaxed) != local.session.epoch {
            local.session.add_pool(info());
        }
    });
}

/// Describes a worker.
#[cold]
pub(crate) fn describe_worker(worker: WorkerInfo) {
    with_local(|local| local.session.add_worker(worker));
}

/// Notes the end of a worker.
#[cold]
pub(crate) fn worker_ended(number: u32, end: WorkerEnd) {
    with_local(|local| local.session.end_worker(number, end));
}
