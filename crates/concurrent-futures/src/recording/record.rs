//! The records of events, and their words.

#![forbid(unsafe_code)]

use crate::recording::lane::Lane;

/// The number of words of a record: a line of the cache.
pub(crate) const WORDS: usize = 8;

/// The places of the words with the beginning, the end and the task.
pub(crate) const START: usize = 0;
pub(crate) const END: usize = 1;
pub(crate) const TASK: usize = 2;

/// The place of the word with the kind of the event: words are no record while this one is 0.
pub(crate) const KINDS: usize = 3;

/// The words of a record.
pub(crate) type Words = [u64; WORDS];

/// The buffer of a thread.
pub(crate) type RecordLane = Lane<WORDS>;

/// The kinds of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Kind {
    /// A task was submitted; `end` is the number of the task that submitted it.
    Submit = 1,
    /// A task has run.
    Run = 2,
    /// A pending task was cancelled.
    Cancel = 3,
    /// A task was failed without being started.
    Reject = 4,
    /// A task is to run again.
    Retry = 5,
    /// A task has waited; `items` is the number of the task that it waited for.
    Wait = 6,
    /// The call of a task was pickled.
    Pickle = 7,
}

/// The outcomes of tasks, as recordings show them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
#[allow(unreachable_pub, reason = "other frontends use it")]
pub enum RunOutcome {
    /// The task is pending.
    Pending = 0,
    /// The task is running.
    Running = 1,
    /// The call returned a value.
    Finished = 2,
    /// The call returned an error.
    Failed = 3,
    /// The task was cancelled before it started.
    Cancelled = 4,
    /// The task failed without being started.
    Rejected = 5,
    /// The worker process died.
    WorkerDied = 6,
    /// The time limit passed.
    TimeLimit = 7,
    /// The task was terminated.
    Terminated = 8,
    /// Another thread has set an outcome.
    Elsewhere = 9,
}

impl RunOutcome {
    /// Returns whether a call finished or failed, by its result.
    pub(crate) fn of<T, E>(result: &Result<T, E>) -> Self {
        if result.is_ok() {
            Self::Finished
        } else {
            Self::Failed
        }
    }

    const ALL: [Self; 10] = [
        Self::Pending,
        Self::Running,
        Self::Finished,
        Self::Failed,
        Self::Cancelled,
        Self::Rejected,
        Self::WorkerDied,
        Self::TimeLimit,
        Self::Terminated,
        Self::Elsewhere,
    ];

    /// Returns the name for people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Running => "running",
            Self::Finished => "finished",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
            Self::Rejected => "failed without being started",
            Self::WorkerDied => "worker died",
            Self::TimeLimit => "time limit",
            Self::Terminated => "terminated",
            Self::Elsewhere => "set by another thread",
        }
    }
}

/// An event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) kind: Kind,
    pub(crate) outcome: RunOutcome,
    /// Nanoseconds of the monotonic clock.
    pub(crate) start: u64,
    pub(crate) end: u64,
    /// The number of the future.
    pub(crate) task: u64,
    /// The name of the function, as an index of the table of strings.
    pub(crate) name: u32,
    pub(crate) pool: u32,
    pub(crate) worker: u32,
    /// The error, or the label.
    pub(crate) text: u32,
    /// The arguments.
    pub(crate) arguments: u32,
    pub(crate) items: u64,
    pub(crate) sent: u32,
    pub(crate) received: u32,
}

#[inline]
fn pair(low: u32, high: u32) -> u64 {
    u64::from(low) | u64::from(high) << 32
}

fn halves(word: u64) -> (u32, u32) {
    let half = |word: u64| u32::try_from(word & u64::from(u32::MAX)).unwrap_or_default();
    (half(word), half(word >> 32))
}

/// Returns the word with the kind, the outcome and the name.
#[inline]
pub(crate) fn kinds(kind: Kind, outcome: RunOutcome, name: u32) -> u64 {
    pair(kind as u32 | (outcome as u32) << 8, name)
}

/// Returns the words of a run that begins.
#[inline]
pub(crate) fn begun(start: u64, task: u64, pool: u32, worker: u32) -> Words {
    let kinds = kinds(Kind::Run, RunOutcome::Running, 0);
    [start, 0, task, kinds, pair(pool, worker), 0, 1, 0]
}

/// Returns the words of a run that has ended, of which [`begun`] has made `words`.
#[inline]
pub(crate) fn ended(words: &Words, end: u64, outcome: RunOutcome, name: u32, error: u32) -> Words {
    let [start, _, task, _, places, _, items, bytes] = *words;
    let kinds = kinds(Kind::Run, outcome, name);
    [start, end, task, kinds, places, error.into(), items, bytes]
}

/// Returns the words of a wait of the task that has begun with `words`.
pub(crate) fn waiting(words: &Words, since: u64, awaited: u64) -> Words {
    let [start, _, task, _, places, ..] = *words;
    let kinds = kinds(Kind::Wait, RunOutcome::Running, 0);
    [start, since, task, kinds, places, 0, awaited, 0]
}

impl Record {
    pub(crate) fn new(kind: Kind, task: u64) -> Self {
        Self {
            kind,
            outcome: RunOutcome::Pending,
            start: 0,
            end: 0,
            task,
            name: 0,
            pool: 0,
            worker: 0,
            text: 0,
            arguments: 0,
            items: 0,
            sent: 0,
            received: 0,
        }
    }

    #[inline]
    pub(crate) fn encode(&self) -> Words {
        [
            self.start,
            self.end,
            self.task,
            kinds(self.kind, self.outcome, self.name),
            pair(self.pool, self.worker),
            pair(self.text, self.arguments),
            self.items,
            pair(self.sent, self.received),
        ]
    }

    /// Returns the record of these words; none if they are not one.
    pub(crate) fn decode(words: &Words) -> Option<Self> {
        let [start, end, task, kinds, places, texts, items, bytes] = *words;
        let (kinds, name) = halves(kinds);
        let [kind, outcome, ..] = kinds.to_le_bytes();
        let kind = match kind {
            1 => Kind::Submit,
            2 => Kind::Run,
            3 => Kind::Cancel,
            4 => Kind::Reject,
            5 => Kind::Retry,
            6 => Kind::Wait,
            7 => Kind::Pickle,
            _ => return None,
        };
        let (pool, worker) = halves(places);
        let (text, arguments) = halves(texts);
        let (sent, received) = halves(bytes);
        Some(Self {
            kind,
            outcome: *RunOutcome::ALL.get(usize::from(outcome))?,
            start,
            end,
            task,
            name,
            pool,
            worker,
            text,
            arguments,
            items,
            sent,
            received,
        })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn records_come_back(start: u64, end: u64, task: u64, name: u32, pool: u32, worker: u32,
                             text: u32, items: u64, sent: u32, outcome in 0_usize..10) {
            let record = Record {
                outcome: RunOutcome::ALL[outcome],
                start, end, name, pool, worker, text, items, sent,
                arguments: text ^ 1,
                received: !sent,
                ..Record::new(Kind::Run, task)
            };
            prop_assert_eq!(Record::decode(&record.encode()), Some(record));
        }

        #[test]
        fn runs_begin_and_end(start: u64, end: u64, task: u64, name: u32, pool: u32, worker: u32, error: u32) {
            let running = Record {
                outcome: RunOutcome::Running,
                items: 1,
                start, pool, worker,
                ..Record::new(Kind::Run, task)
            };
            let words = begun(start, task, pool, worker);
            prop_assert_eq!(Record::decode(&words), Some(running));
            let run = Record { outcome: RunOutcome::Failed, end, name, text: error, ..running };
            prop_assert_eq!(Record::decode(&ended(&words, end, run.outcome, name, error)), Some(run));
            let wait = Record { kind: Kind::Wait, end, items: name.into(), ..running };
            prop_assert_eq!(Record::decode(&waiting(&words, end, name.into())), Some(wait));
        }

        #[test]
        fn any_words_are_a_record_or_none(words: [u64; WORDS]) {
            if let Some(record) = Record::decode(&words) {
                prop_assert_eq!(Record::decode(&record.encode()), Some(record));
            }
        }
    }
}
