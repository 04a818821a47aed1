//! A call, as it is submitted and as the client keeps it.

#![forbid(unsafe_code)]

use super::{Argument, ClusterOptions};
use crate::wire::{Call, Payload, Record, hash_of_payload};
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

/// The part of a call that the calls of one function share.
pub(crate) struct CallKind {
    pub(super) call: Call,
    pub(super) options: ClusterOptions,
    /// The type of the result, by its name; empty for other frontends.
    pub(super) result: Cow<'static, str>,
}

impl CallKind {
    pub(crate) fn new(call: Call, options: ClusterOptions, result: &'static str) -> Self {
        Self {
            call,
            options,
            result: Cow::Borrowed(result),
        }
    }

    /// Returns whether a call with these options is of this kind, if its result has the same type.
    pub(crate) fn is_of(&self, call: &Call, options: &ClusterOptions) -> bool {
        self.call == *call && self.options == *options
    }
}

/// A call, as it is submitted.
pub(crate) struct Submission {
    pub(super) kind: Arc<CallKind>,
    pub(super) argument: Argument,
}

impl Submission {
    pub(crate) fn new(kind: Arc<CallKind>, argument: Argument) -> Self {
        Self { kind, argument }
    }

    /// Makes a call that is the only one of its kind.
    #[cfg(test)]
    pub(crate) fn single(call: Call, argument: Bytes, options: ClusterOptions) -> Self {
        Self::new(Arc::new(CallKind::new(call, options, "")), argument.into())
    }
}

/// A call, as the client keeps it.
pub(super) struct Request {
    pub(super) kind: Arc<CallKind>,
    pub(super) argument: Bytes,
    /// The hash of a long argument, once it is needed. It has a box, as few arguments are long.
    pub(super) hash: OnceLock<Box<[u8; 32]>>,
    /// The terms that only the record has, of a task of an earlier client.
    pub(super) found: Option<Box<FoundTerms>>,
    /// The rank of a kept task, once it is recorded.
    pub(super) rank: OnceLock<u8>,
}

/// The terms of a task of an earlier client that only the record has.
pub(super) struct FoundTerms {
    pub(super) priority: u8,
    pub(super) age: Duration,
    pub(super) argument: Payload,
}

impl Request {
    pub(super) fn of(kind: Arc<CallKind>, argument: Bytes) -> Self {
        Self {
            kind,
            argument,
            hash: OnceLock::new(),
            found: None,
            rank: OnceLock::new(),
        }
    }

    /// Makes the call of a record.
    pub(super) fn found(record: Record) -> Self {
        let options = ClusterOptions {
            time_limit: record.time_limit,
            retries: record.retries,
            on_host_loss: record.on_host_loss,
        };
        let kind = CallKind {
            call: record.call,
            options,
            result: Cow::Owned(record.result),
        };
        let mut request = Self::of(Arc::new(kind), Bytes::new());
        request.rank = OnceLock::from(record.rank);
        request.found = Some(Box::new(FoundTerms {
            priority: record.priority,
            age: record.age,
            argument: record.argument,
        }));
        request
    }

    pub(super) fn hash(&self) -> &[u8; 32] {
        self.hash
            .get_or_init(|| Box::new(hash_of_payload(&self.argument)))
    }
}
