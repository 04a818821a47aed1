//! The records of events, and their words.

#![forbid(unsafe_code)]

/// The number of words of a record: a line of the cache.
pub(crate) const WORDS: usize = 8;

/// The number of words of a [`Half`].
pub(crate) const HALF: usize = 4;

/// The places of the words with the beginning and the end.
pub(crate) const START: usize = 0;
pub(crate) const END: usize = 1;

/// The place of the word with the kind of the event: words are no record while this one is 0.
pub(crate) const KINDS: usize = 3;

/// The words of a record.
pub(crate) type Words = [u64; WORDS];

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

/// A run that has begun. That of no task is the default.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Run {
    pub(crate) start: u64,
    /// The number of the future.
    pub(crate) task: u64,
    pub(crate) pool: u32,
    pub(crate) worker: u32,
}

impl Run {
    /// Returns the record of the run.
    #[inline]
    pub(crate) fn record(self) -> Record {
        Record {
            outcome: RunOutcome::Running,
            start: self.start,
            pool: self.pool,
            worker: self.worker,
            items: 1,
            ..Record::new(Kind::Run, self.task)
        }
    }

    /// Returns the record of a wait in the run.
    pub(crate) fn waiting(self, since: u64, awaited: u64) -> Record {
        Record {
            kind: Kind::Wait,
            end: since,
            items: awaited,
            ..self.record()
        }
    }
}

/// A record in half as many words: its beginning, its task, a word of [`parts`](Half::parts), and its pool with its worker
/// or label. Or the number of a record that has all words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Half(pub(crate) [u64; HALF]);

impl Half {
    const KIND: u32 = 4;
    const OUTCOME: u32 = 4;
    const NAME: u32 = 20;
    const DURATION: u32 = 64 - Self::KIND - Self::OUTCOME - Self::NAME;

    /// Returns the half that stands for a record with all words.
    pub(crate) fn of_wide(number: u64) -> Self {
        Self([number, 0, 0, 0])
    }

    /// Returns the number of the record that the half stands for.
    pub(crate) fn wide(self) -> Option<u64> {
        let [number, _, parts, _] = self.0;
        (parts == 0).then_some(number)
    }

    /// Returns the word with the kind, the outcome, the name and the duration; none if they do not fit.
    #[inline]
    fn parts(kind: Kind, outcome: RunOutcome, name: u32, duration: u64) -> Option<u64> {
        let fits = name < 1 << Self::NAME && duration < 1 << Self::DURATION;
        let low = kind as u64 | (outcome as u64) << Self::KIND;
        let name = u64::from(name) << (Self::KIND + Self::OUTCOME);
        fits.then_some(low | name | duration << (64 - Self::DURATION))
    }

    /// Returns all words of a record that has a half.
    pub(crate) fn widen(self) -> Words {
        let [start, task, parts, places] = self.0;
        let bits = |from: u32, count: u32| parts >> from & ((1 << count) - 1);
        let kind = bits(0, Self::KIND);
        let outcome = bits(Self::KIND, Self::OUTCOME);
        let name = bits(Self::KIND + Self::OUTCOME, Self::NAME);
        let duration = bits(64 - Self::DURATION, Self::DURATION);
        let kinds = kind | outcome << 8 | name << 32;
        if kind == Kind::Submit as u64 {
            let (pool, label) = halves(places);
            [start, 0, task, kinds, pool.into(), label.into(), 0, 0]
        } else {
            [
                start,
                start.wrapping_add(duration),
                task,
                kinds,
                places,
                0,
                1,
                0,
            ]
        }
    }
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
            pair(self.kind as u32 | (self.outcome as u32) << 8, self.name),
            pair(self.pool, self.worker),
            pair(self.text, self.arguments),
            self.items,
            pair(self.sent, self.received),
        ]
    }

    /// Returns the record in half as many words: a submission by no task, or a run that needs no further words. None for
    /// other records.
    #[inline]
    pub(crate) fn half(&self) -> Option<Half> {
        let (second, others, duration) = match self.kind {
            Kind::Submit => (self.text, self.end | self.items | u64::from(self.worker), 0),
            Kind::Run => {
                let others = self.items ^ 1 | u64::from(self.text);
                (self.worker, others, self.end.wrapping_sub(self.start))
            }
            _ => return None,
        };
        if others != 0 || self.arguments | self.sent | self.received != 0 {
            return None;
        }
        let parts = Half::parts(self.kind, self.outcome, self.name, duration)?;
        Some(Half([
            self.start,
            self.task,
            parts,
            pair(self.pool, second),
        ]))
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
        fn a_record_that_has_a_half_comes_back(
            is_run: bool, start: u64, end in prop_oneof![Just(0), 0..1_u64 << 40, any::<u64>()], task: u64,
            name in prop_oneof![0..1_u32 << 20, any::<u32>()], pool: u32, outcome in 0_usize..10,
            other in prop_oneof![Just(0), any::<u32>()], others in prop::array::uniform5(prop_oneof![9 => Just(0), 1 => 0..3_u32]),
        ) {
            let [items, arguments, sent, received, second] = others;
            let (kind, end, items) = if is_run {
                (Kind::Run, start.wrapping_add(end), items ^ 1)
            } else {
                (Kind::Submit, end, items)
            };
            let (text, worker) = if is_run { (second, other) } else { (other, second) };
            let record = Record {
                outcome: RunOutcome::ALL[outcome],
                start, end, name, pool, text, worker, arguments, sent, received,
                items: items.into(),
                ..Record::new(kind, task)
            };
            let plain = name < 1 << 20 && others.iter().all(|other| *other == 0);
            let fits = plain && if is_run { end.wrapping_sub(start) < 1 << 36 } else { end == 0 };
            prop_assert_eq!(record.half().is_some(), fits);
            if let Some(half) = record.half() {
                prop_assert_eq!(half.wide(), None);
                prop_assert_eq!(half.widen(), record.encode());
            }
        }

        #[test]
        fn a_half_stands_for_a_record_with_all_words(number: u64) {
            prop_assert_eq!(Half::of_wide(number).wide(), Some(number));
        }

        #[test]
        fn any_words_are_a_record_or_none(words: [u64; WORDS]) {
            if let Some(record) = Record::decode(&words) {
                prop_assert_eq!(Record::decode(&record.encode()), Some(record));
            }
        }
    }
}
