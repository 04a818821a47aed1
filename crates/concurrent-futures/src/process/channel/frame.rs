//! The frames of the two streams.
//!
//! A frame is a header of 32 bytes, a payload of the length that the header names, and zeros up to a multiple of
//! 8. Numbers are in the machine's order, as both ends are on one machine.
//!
//! | bytes | to a worker | from a worker |
//! |---|---|---|
//! | 0..4 | the claim | the kind |
//! | 4..8 | the kind | number of items of a span that were not begun; of a part, number of its items |
//! | 8..16 | length of the payload | length of the payload |
//! | 16..24 | place of the function | nanoseconds that the task took |
//! | 24..32 | number of the frame | number of the frame that it answers |
//!
//! The highest bit of the kind says that an attachment belongs to the frame (`segments/`). The next bit, in a call,
//! asks for a stamp. In a reply, the bit says that the last 16 bytes of the payload are the stamp. A stamp has the
//! begin and the end of the call, in nanoseconds of the monotonic clock.
//!
//! # Claims
//! The first word of a frame to a worker decides a race. The worker turns `Ready` into `Taken` before it begins;
//! the supervisor turns `Ready` into `Recalled` to give the task to another worker. The first of the two
//! succeeds. The worker skips a recalled frame.

#![forbid(unsafe_code)]

use crate::process::channel::ring::Corrupt;
use crate::runtime::sync::atomic::{AtomicU32, Ordering};

/// A bit in the kind of a frame that has an attachment; see `segments/`.
const ATTACHED: u32 = 1 << 31;
/// A bit in the kind of a call that is to be stamped, and of a reply that is.
const STAMPED: u32 = 1 << 30;

/// The length of a stamp.
pub(crate) const STAMP: usize = 16;

/// The length of a header.
pub(crate) const HEADER: usize = 32;

/// The claim on a frame: which side has taken the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Claim {
    /// No side has taken the frame yet.
    Ready = 0x0043_4601,
    /// The worker has taken the frame.
    Taken = 0x0043_4602,
    /// The pool has taken the frame back.
    Recalled = 0x0043_4603,
}

impl Claim {
    /// Claims a frame. Returns false if the other side has claimed it.
    pub(crate) fn claim(self, word: &AtomicU32) -> bool {
        // ORDERING: Relaxed: the word decides a race and publishes nothing. The
        // frame's bytes were published with the stream's position.
        word.compare_exchange(
            Self::Ready as u32,
            self as u32,
            Ordering::Relaxed,
            Ordering::Relaxed,
        )
        .is_ok()
    }

    /// Returns whether the frame is as this claim left it.
    pub(crate) fn holds(self, word: &AtomicU32) -> bool {
        word.load(Ordering::Relaxed) == self as u32
    }
}

/// The orders that a worker can receive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum Order {
    /// Calls a function.
    Call = 1,
    /// Calls the initializer.
    Initialize = 2,
    /// Ends the worker.
    Close = 3,
    /// Learns a function.
    Define = 4,
    /// Takes back segments.
    Release = 5,
}

/// The header of a frame to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) order: Order,
    pub(crate) is_attached: bool,
    /// Whether the reply is to have a stamp.
    pub(crate) is_stamped: bool,
    pub(crate) length: u64,
    pub(crate) function: u64,
    pub(crate) number: u64,
}

impl Call {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let order = self.order as u32 | flags(self.is_attached, self.is_stamped);
        let kinds = (Claim::Ready as u32, order);
        encode(kinds, [self.length, self.function, self.number])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let ((_, order), [length, function, number]) = decode(bytes)?;
        let is_attached = order & ATTACHED != 0;
        let is_stamped = order & STAMPED != 0;
        let order = match order & !(ATTACHED | STAMPED) {
            1 => Order::Call,
            2 => Order::Initialize,
            3 => Order::Close,
            4 => Order::Define,
            5 => Order::Release,
            _ => return Err(Corrupt),
        };
        Ok(Self {
            order,
            is_attached,
            is_stamped,
            length,
            function,
            number,
        })
    }
}

/// The kinds of replies that a worker sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum ReplyKind {
    /// The task returned this value.
    Value = 1,
    /// The task returned no value, for this reason.
    Failure = 2,
    /// The worker can work.
    Ready = 3,
    /// The worker cannot work: the initializer failed.
    Unusable = 4,
    /// The first items of a span returned these values; the answer for the others follows.
    Part = 5,
    /// Gives back segments; this kind is no reply.
    Release = 6,
}

/// The header of a frame from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    pub(crate) kind: ReplyKind,
    pub(crate) is_attached: bool,
    /// Whether the payload ends with a stamp.
    pub(crate) is_stamped: bool,
    /// The number of last items of a span that were not begun; of a part, the number of its items.
    pub(crate) left: u32,
    pub(crate) length: u64,
    pub(crate) nanoseconds: u64,
    pub(crate) number: u64,
}

impl Reply {
    pub(crate) fn encode(&self) -> [u8; HEADER] {
        let kind = self.kind as u32 | flags(self.is_attached, self.is_stamped);
        let kinds = (kind, self.left);
        encode(kinds, [self.length, self.nanoseconds, self.number])
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let ((kind, left), [length, nanoseconds, number]) = decode(bytes)?;
        let is_attached = kind & ATTACHED != 0;
        let is_stamped = kind & STAMPED != 0;
        let kind = match kind & !(ATTACHED | STAMPED) {
            1 => ReplyKind::Value,
            2 => ReplyKind::Failure,
            3 => ReplyKind::Ready,
            4 => ReplyKind::Unusable,
            5 => ReplyKind::Part,
            6 => ReplyKind::Release,
            _ => return Err(Corrupt),
        };
        Ok(Self {
            kind,
            is_attached,
            is_stamped,
            left,
            length,
            nanoseconds,
            number,
        })
    }
}

fn flags(is_attached: bool, is_stamped: bool) -> u32 {
    let attached = if is_attached { ATTACHED } else { 0 };
    let stamped = if is_stamped { STAMPED } else { 0 };
    attached | stamped
}

fn encode((first, second): (u32, u32), numbers: [u64; 3]) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[0..4].copy_from_slice(&first.to_ne_bytes());
    bytes[4..8].copy_from_slice(&second.to_ne_bytes());
    for (place, number) in bytes[8..].chunks_exact_mut(8).zip(numbers) {
        place.copy_from_slice(&number.to_ne_bytes());
    }
    bytes
}

fn decode(bytes: &[u8]) -> Result<((u32, u32), [u64; 3]), Corrupt> {
    let word = |at: usize| Some(u32::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let number = |at: usize| Some(u64::from_ne_bytes(*bytes.get(at..)?.first_chunk()?));
    let fields = || Some(((word(0)?, word(4)?), [number(8)?, number(16)?, number(24)?]));
    fields().ok_or(Corrupt)
}

/// Returns the length of a frame with a payload of this length, if that is a number.
pub(crate) fn padded(length: u64) -> Option<u64> {
    length.checked_next_multiple_of(8)
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_bytes_are_a_header_or_corrupt(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            // Neither panics.
            if let Ok(reply) = Reply::decode(&bytes) {
                prop_assert_eq!(&reply.encode()[..], &bytes[..HEADER]);
            }
            let _ = Call::decode(&bytes);
        }

        #[test]
        fn headers_come_back(is_attached: bool, is_stamped: bool, length: u64, function: u64, number: u64) {
            let call = Call { order: Order::Call, is_attached, is_stamped, length, function, number };
            prop_assert_eq!(Call::decode(&call.encode()), Ok(call));
            let reply = Reply {
                kind: ReplyKind::Value,
                is_attached,
                is_stamped,
                left: 3,
                length,
                nanoseconds: function,
                number,
            };
            prop_assert_eq!(Reply::decode(&reply.encode()), Ok(reply));
        }
    }

    #[test]
    fn one_side_has_a_frame() {
        let word = AtomicU32::new(Claim::Ready as u32);
        assert!(Claim::Recalled.claim(&word));
        assert!(!Claim::Taken.claim(&word));
        assert!(Claim::Recalled.holds(&word));
    }
}
