//! The state machine of a future: one atomic word decides every race.
//!
//! The word holds the phase (3 bits), a flag, and in its upper bits the head of a list of [`Node`]s (`list.rs`). The
//! nodes are threads, wakers and sets that wait for the future, and callbacks. A head that is not an address
//! marks the list as locked.
//!
//! # Phases
//!
//! | phase        | meaning                                     | next                              |
//! |--------------|---------------------------------------------|-----------------------------------|
//! | `Pending`    | no worker has begun                         | `Running`, `Setting`, `Cancelling`|
//! | `Running`    | a worker runs the task                      | `Finishing`, `Finished`, `Setting`|
//! | `Setting`    | one setter of a promise writes the outcome  | `Finishing`, `Finished`           |
//! | `Finishing`  | outcome written, callbacks run              | `Finished`                        |
//! | `Cancelling` | cancelled, callbacks run                    | `Cancelled`                       |
//! | `Finished`   | outcome written, callbacks have run         | –                                 |
//! | `Cancelled`  | cancelled, callbacks have run               | –, `Notified`                     |
//! | `Notified`   | cancelled, and its executor has noticed     | –                                 |
//!
//! # Transitions
//!
//! | call          | from                  | to                        | permitted caller            |
//! |---------------|-----------------------|---------------------------|-----------------------------|
//! | [`start`]     | `Pending`             | `Running`                 | any thread; one succeeds    |
//! | [`claim`]     | `Pending`, `Running`  | `Setting`                 | any thread; one succeeds    |
//! | [`finish`]    | `Running`, `Setting`  | `Finishing` → `Finished`  | the thread that started or claimed |
//! | [`cancel`]    | `Pending`             | `Cancelling` → `Cancelled`| any thread; one succeeds    |
//! | [`register`]  | not done              | same, node in the list    | any thread                  |
//! | [`unregister`]| not done              | same, node not in the list| the thread that registered  |
//! | [`flag`]      | not done, `Cancelled` | same, flagged             | see below                   |
//! | [`advance`]   | any given             | any given                 | frontends with an order of their own |
//!
//! The flag makes the thread that completes the future look further. In Rust, the flag means that the handle
//! is gone and no other thread will drop the outcome. In the Python frontend, the flag means that Python code
//! observes the future.
//!
//! `Finishing` is skipped if the future has no waiters. Callbacks that are added while others run are run after
//! them, by the same thread.
//!
//! *Done* means `Finished`, `Cancelled` or `Notified`. A waiting thread goes on after the future's callbacks have
//! run, so that no thread can take the outcome while they look at it. Where outcomes are shared, as in Python,
//! callbacks are not in the list, and `advance` makes the future done before they run. `Notified` is
//! `CANCELLED_AND_NOTIFIED` of `CPython`; no future of the Rust frontend comes there.
//!
//! # Invariants
//!
//! 1. A phase is left at most once, by one compare-exchange: of `start`, `claim`
//!    and `cancel` exactly one wins.
//! 2. While the list is locked, only the thread that locked it writes the word or
//!    touches the `next` of a registered node. It is locked for the unlinking of
//!    nodes only, never while foreign code runs. Registering, starting and
//!    finishing without callbacks take no lock.
//! 3. A registered node is in the list exactly as long as the phase is not done.
//!    The transition to done takes the whole list, and its thread notifies each
//!    node once and never touches it again. So `unregister` either removes the
//!    node (no thread will notify it) or reports that its notification is coming.
//! 4. When a handle is dropped before the future is done, `flag` wins against the transition to done or
//!    loses. If `flag` wins, the finishing thread drops the outcome before the future is done. If `flag`
//!    loses, the handle drops the outcome.
//!
//! The models in `future/models.rs` check these under loom.
//!
//! [`start`]: State::start
//! [`claim`]: State::claim
//! [`finish`]: State::finish
//! [`cancel`]: State::cancel
//! [`register`]: State::register
//! [`unregister`]: State::unregister
//! [`flag`]: State::flag
//! [`advance`]: State::advance

use crate::runtime::sync::Backoff;
use crate::runtime::sync::atomic::{AtomicPtr, Ordering};
#[cfg(any(all(feature = "process", unix), all(test, loom_models)))]
use crate::task::list::calls_foreign_code;
use crate::task::list::{Node, divide, notify_all, run_callbacks};
use std::ptr::{self, NonNull};

/// The phase of a future; see the module's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// No worker has begun.
    Pending,
    /// A worker runs the task.
    Running,
    /// The outcome is being written.
    Setting,
    /// The outcome is written, and callbacks look at it.
    Finishing,
    /// The future is cancelled, and callbacks are being run.
    Cancelling,
    /// The outcome is there.
    Finished,
    /// The future has no outcome and never will.
    Cancelled,
    /// The future is cancelled, and its executor has taken notice.
    Notified,
}

impl Phase {
    /// Returns whether the future is done, so that waiting for it is over.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, Phase::Finished | Phase::Cancelled | Phase::Notified)
    }
}

const PHASE_MASK: usize = 0b0111;
/// The bit that makes the completing thread look further.
const FLAG: usize = 0b1000;
const TAG_MASK: usize = 0b1111;
/// The value of the list while one thread changes it; no node has this address.
const LOCKED: usize = 0b1_0000;

/// One value of the word.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Word(*mut Node);

impl Word {
    fn new(phase: Phase) -> Self {
        Self(ptr::without_provenance_mut(phase as usize))
    }

    fn phase(self) -> Phase {
        match self.0.addr() & PHASE_MASK {
            0 => Phase::Pending,
            1 => Phase::Running,
            2 => Phase::Setting,
            3 => Phase::Finishing,
            4 => Phase::Cancelling,
            5 => Phase::Finished,
            6 => Phase::Cancelled,
            _ => Phase::Notified,
        }
    }

    fn is_locked(self) -> bool {
        self.0.addr() & !TAG_MASK == LOCKED
    }

    fn is_flagged(self) -> bool {
        self.0.addr() & FLAG != 0
    }

    fn list(self) -> *mut Node {
        self.0.map_addr(|word| word & !TAG_MASK)
    }

    fn with_phase(self, phase: Phase) -> Self {
        Self(self.0.map_addr(|word| word & !PHASE_MASK | phase as usize))
    }

    fn with_list(self, list: *mut Node) -> Self {
        let tag = self.0.addr() & TAG_MASK;
        Self(list.map_addr(|list| list | tag))
    }

    fn locked(self) -> Self {
        self.with_list(ptr::without_provenance_mut(LOCKED))
    }

    fn flagged(self) -> Self {
        Self(self.0.map_addr(|word| word | FLAG))
    }
}

/// The answer to a request to cancel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cancel {
    /// This call cancelled the future.
    Now,
    /// The future was cancelled before.
    Before,
    /// The call came too late: the task runs or has finished.
    TooLate,
}

/// The outcome of a call of [`State::advance`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// The future is in the new phase.
    Done,
    /// The future is flagged, and unchanged.
    Flagged,
    /// The future is in another phase than asked for.
    Other(Phase),
}

/// The word, and the list in it.
#[derive(Debug)]
pub struct State {
    word: AtomicPtr<Node>,
}

impl State {
    pub(crate) fn new() -> Self {
        Self {
            word: AtomicPtr::new(Word::new(Phase::Pending).0),
        }
    }

    fn load(&self) -> Word {
        // ORDERING: Acquire, so that a thread that sees a phase also sees the stores before it: the
        // outcome.
        Word(self.word.load(Ordering::Acquire))
    }

    /// Changes the word if it is `current`; otherwise returns its value.
    fn exchange(&self, current: Word, new: Word) -> Result<(), Word> {
        // ORDERING: Release publishes the outcome and a node's fields. By Acquire, the thread that takes
        // the list sees the fields of its nodes, and a thread that is too late sees the outcome.
        self.word
            .compare_exchange_weak(current.0, new.0, Ordering::AcqRel, Ordering::Acquire)
            .map(drop)
            .map_err(Word)
    }

    /// Changes the word by `change` once no thread holds the lock. Returns the previous word, or the word for
    /// which `change` returned `None`.
    fn update(&self, change: impl Fn(Word) -> Option<Word>) -> Result<Word, Word> {
        let mut backoff = Backoff::default();
        let mut current = self.load();
        loop {
            let Some(new) = change(current) else {
                return Err(current);
            };
            if current.is_locked() {
                backoff.snooze();
                current = self.load();
            } else {
                match self.exchange(current, new) {
                    Ok(()) => return Ok(current),
                    Err(now) => current = now,
                }
            }
        }
    }

    /// Returns the phase at this moment.
    pub fn phase(&self) -> Phase {
        self.load().phase()
    }

    /// Returns whether the future is done.
    pub fn is_done(&self) -> bool {
        self.phase().is_done()
    }

    /// Moves the future from `Pending` to `Running`. Returns false if another thread was first.
    ///
    /// # Safety
    /// The caller may run the task by the protocol of its frontend. After true, the caller takes the call, and
    /// then makes the future done.
    pub unsafe fn start(&self) -> bool {
        self.update(|word| match word.phase() {
            Phase::Pending => Some(word.with_phase(Phase::Running)),
            _ => None,
        })
        .is_ok()
    }

    /// Moves the future from `Pending` or `Running` to `Setting`: the caller may write the outcome and must
    /// then make the future done.
    ///
    /// # Errors
    /// The phase that forbids it.
    ///
    /// # Safety
    /// The caller may set the outcome by the protocol of its frontend. If the future was pending, its
    /// call is the caller's to drop.
    pub unsafe fn claim(&self) -> Result<(), Phase> {
        self.update(|word| match word.phase() {
            Phase::Pending | Phase::Running => Some(word.with_phase(Phase::Setting)),
            _ => None,
        })
        .map(drop)
        .map_err(Word::phase)
    }

    /// Makes a future `Finished` if only the phase has to change: the future is not flagged, and has no
    /// waiters yet.
    ///
    /// # Safety
    /// The caller has started or claimed, and the outcome is written.
    pub unsafe fn finish_unobserved(&self) -> bool {
        let word = self.load();
        [Phase::Running, Phase::Setting]
            .map(Word::new)
            .contains(&word)
            && self.exchange(word, Word::new(Phase::Finished)).is_ok()
    }

    /// Makes the future `Finished`, and notifies all waiters, if no foreign code is called for it. That holds
    /// if there are no callbacks and no wakers, and the future is not flagged.
    ///
    /// # Safety
    /// As for [`finish_unobserved`](Self::finish_unobserved).
    #[cfg(any(all(feature = "process", unix), all(test, loom_models)))]
    pub(crate) unsafe fn finish_uncalled(&self) -> bool {
        // SAFETY: the conditions are those of `finish_unobserved`: the caller has started or claimed, and the
        // outcome is written.
        if unsafe { self.finish_unobserved() } {
            return true;
        }
        let lock = |word: Word| (!word.is_flagged()).then(|| word.locked());
        let Ok(before) = self.update(lock) else {
            return false;
        };
        // SAFETY: the lock gives us the list.
        if unsafe { calls_foreign_code(before.list()) } {
            self.unlock(before);
            return false;
        }
        self.unlock(Word::new(Phase::Finished));
        notify_all(before.list());
        true
    }

    /// Returns whether finishing the future calls no foreign code but the value's destructor. The future is
    /// being made done, and its handle is gone, so that no thread registers any more.
    #[cfg(any(all(feature = "process", unix), all(test, loom_models)))]
    pub(crate) fn is_only_dropped(&self) -> bool {
        let Ok(before) = self.update(|word| word.is_flagged().then(|| word.locked())) else {
            return false;
        };
        // SAFETY: the lock gives us the list.
        let calls = unsafe { calls_foreign_code(before.list()) };
        self.unlock(before);
        !calls
    }

    /// Moves the future to phase `to` if its phase is in `from` and, unless `despite_flag`, it is not
    /// flagged. Notifies all waiters if the future is done by that.
    ///
    /// # Safety
    /// The protocol of the caller's frontend allows this transition. The list has no callbacks, and the
    /// outcome is written if `to` is `Finished`.
    pub unsafe fn advance(&self, from: &[Phase], to: Phase, despite_flag: bool) -> Advance {
        let change = |word: Word| {
            let goes = from.contains(&word.phase()) && (despite_flag || !word.is_flagged());
            goes.then(|| {
                let kept = if to.is_done() {
                    ptr::null_mut()
                } else {
                    word.list()
                };
                word.with_phase(to).with_list(kept)
            })
        };
        match self.update(change) {
            Ok(before) => {
                if to.is_done() {
                    notify_all(before.list());
                }
                Advance::Done
            }
            Err(word) if from.contains(&word.phase()) => Advance::Flagged,
            Err(word) => Advance::Other(word.phase()),
        }
    }

    /// Returns whether the future is flagged.
    pub fn is_flagged(&self) -> bool {
        self.load().is_flagged()
    }

    /// Flags the future. Returns false if no change is possible any more, so that the flag would be too late.
    ///
    /// # Safety
    /// The flag's message to the thread that makes the future done is true. In Rust, the message is that
    /// the handle is gone, and does not drop the outcome.
    pub unsafe fn flag(&self) -> bool {
        let changes = |phase| !matches!(phase, Phase::Finished | Phase::Notified);
        self.update(|word| changes(word.phase()).then(|| word.flagged()))
            .is_ok()
    }

    /// Runs the callbacks, then makes the future `Finished` and notifies all waiters. If the handle is gone,
    /// calls `drop_outcome` before that.
    ///
    /// # Safety
    /// The caller has started or claimed, and `outcome` is written and is what the registered callbacks
    /// expect.
    pub unsafe fn finish(&self, outcome: *const (), drop_outcome: impl FnOnce()) {
        // SAFETY: the caller has started or claimed, and `outcome` is written and is what the callbacks
        // expect, which are the conditions of both functions.
        unsafe {
            if !self.finish_unobserved() {
                self.complete(Phase::Finishing, Phase::Finished, outcome, drop_outcome);
            }
        }
    }

    /// Moves the future from `Pending` to `Cancelled`: calls `drop_call` to drop the call, runs the
    /// callbacks, and notifies all waiters.
    pub fn cancel(&self, drop_call: impl FnOnce()) -> Cancel {
        let cancelling = |word: Word| match word.phase() {
            Phase::Pending => Some(word.with_phase(Phase::Cancelling)),
            _ => None,
        };
        match self.update(cancelling) {
            Ok(_) => {
                drop_call();
                // SAFETY: ours is the cancellation; null is what callbacks expect.
                unsafe {
                    self.complete(Phase::Cancelling, Phase::Cancelled, ptr::null(), || {});
                }
                Cancel::Now
            }
            Err(word) => match word.phase() {
                Phase::Cancelling | Phase::Cancelled | Phase::Notified => Cancel::Before,
                _ => Cancel::TooLate,
            },
        }
    }

    /// Makes the future done: runs the callbacks, also those that are added meanwhile, until there are none;
    /// then notifies all waiters. If the handle is gone, so that no callback can be added any more, calls
    /// `if_detached` before.
    ///
    /// # Safety
    /// The caller has won the right to complete the future, and the callbacks take
    /// `outcome`.
    unsafe fn complete(
        &self,
        via: Phase,
        to: Phase,
        outcome: *const (),
        if_detached: impl FnOnce(),
    ) {
        loop {
            let lock = |word: Word| Some(word.with_phase(via).locked());
            let (Ok(before) | Err(before)) = self.update(lock);
            // SAFETY: the lock gives us the list.
            let (callbacks, waiters) = unsafe { divide(before.list()) };
            let word = before.with_phase(via).with_list(waiters);
            if !callbacks.is_null() {
                self.unlock(word);
                // SAFETY: the callbacks are ours, and take the outcome.
                unsafe { run_callbacks(callbacks, outcome) };
            } else if word.is_flagged() {
                self.unlock(word);
                if_detached();
                let (Ok(before) | Err(before)) = self.update(|_| Some(Word::new(to)));
                return notify_all(before.list());
            } else {
                self.unlock(Word::new(to));
                return notify_all(waiters);
            }
        }
    }

    /// Unlocks the word that the caller has locked.
    fn unlock(&self, word: Word) {
        // ORDERING: Release hands on the list, and what was written before. No other thread writes a locked
        // word, so that a plain store loses nothing.
        self.word.store(word.0, Ordering::Release);
    }

    /// Puts a node into the list. Returns false if the future is done.
    ///
    /// # Safety
    /// The node is in no list. After true it stays where it is, alive, until it
    /// is notified or unregistered.
    pub(crate) unsafe fn register(&self, node: NonNull<Node>) -> bool {
        self.update(|word| {
            if word.phase().is_done() {
                return None;
            }
            // SAFETY: the node is the caller's until it is in the list.
            unsafe { node.as_ref().set_next(word.list()) };
            Some(word.with_list(node.as_ptr()))
        })
        .is_ok()
    }

    /// Takes a node out of the list. Returns false if it is too late: the node has been notified or will be
    /// at once, and must be kept until then.
    ///
    /// # Safety
    /// The node was registered here, and has not been unregistered since.
    pub(crate) unsafe fn unregister(&self, node: NonNull<Node>) -> bool {
        let lock = |word: Word| (!word.phase().is_done()).then(|| word.locked());
        let Ok(word) = self.update(lock) else {
            return false;
        };
        let mut list = word.list();
        // SAFETY: the lock gives us the list, and the node is in it.
        unsafe {
            if list == node.as_ptr() {
                list = node.as_ref().take_next();
            } else {
                let mut before = list;
                while (*before).next() != node.as_ptr() {
                    before = (*before).next();
                }
                (*before).set_next(node.as_ref().take_next());
            }
        }
        self.unlock(word.with_list(list));
        true
    }
}
