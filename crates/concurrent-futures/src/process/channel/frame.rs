//! The frames of the two streams.
//!
//! A frame is a header of 32 bytes, so many bytes of payload as it says, and zeros up to a
//! multiple of 8. Numbers are in the machine's order, as both ends are on one machine.
//!
//! | bytes | to a worker | from a worker |
//! |---|---|---|
//! | 0..4 | the claim | the kind |
//! | 4..8 | the kind | items of a span that were not begun; of a part, those that it has |
//! | 8..16 | length of the payload | length of the payload |
//! | 16..24 | place of the function | nanoseconds that the task took |
//! | 24..32 | number of the frame | number of the frame that it answers |
//!
//! The highest bit of the kind says that an attachment belongs to the frame (`lane.rs`).
//!
//! # Claims
//! The first word of a frame to a worker decides a race: the worker turns `Ready` into
//! `Taken` before it begins, the supervisor turns it into `Recalled` to give the task to
//! another. Whoever comes first has it; a recalled frame is passed over.

#![forbid(unsafe_code)]

use super::ring::Corrupt;
use crate::sync::atomic::{AtomicU32, Ordering};

/// Added to the kind of a frame that an attachment belongs to; see `lane.rs`.
const ATTACHED: u32 = 1 << 31;

/// The bytes of a header.
pub(in crate::process) const HEADER: usize = 32;

/// Who has a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::process) enum Claim {
    /// Nobody yet.
    Ready = 0x0043_4601,
    /// The worker.
    Taken = 0x0043_4602,
    /// The supervisor, again.
    Recalled = 0x0043_4603,
}

impl Claim {
    /// Claims a frame. False when the other side has.
    pub(in crate::process) fn claim(self, word: &AtomicU32) -> bool {
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

    /// Whether the frame is as this claim left it.
    pub(in crate::process) fn holds(self, word: &AtomicU32) -> bool {
        word.load(Ordering::Relaxed) == self as u32
    }
}

/// What a worker is asked to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::process) enum Order {
    /// Call a function.
    Call = 1,
    /// Call the initializer.
    Initialize = 2,
    /// End.
    Close = 3,
    /// Learn a function.
    Define = 4,
    /// Take back segments.
    Release = 5,
}

/// The header of a frame to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Call {
    pub(in crate::process) order: Order,
    pub(in crate::process) is_attached: bool,
    pub(in crate::process) length: u64,
    pub(in crate::process) function: u64,
    pub(in crate::process) number: u64,
}

impl Call {
    pub(in crate::process) fn encode(&self) -> [u8; HEADER] {
        let order = self.order as u32 | flag(self.is_attached);
        let kinds = (Claim::Ready as u32, order);
        encode(kinds, [self.length, self.function, self.number])
    }

    pub(in crate::process) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let ((_, order), [length, function, number]) = decode(bytes)?;
        let is_attached = order & ATTACHED != 0;
        let order = match order & !ATTACHED {
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
            length,
            function,
            number,
        })
    }
}

/// What a worker answers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(in crate::process) enum ReplyKind {
    /// The task returned this value.
    Value = 1,
    /// It did not, for this reason.
    Failure = 2,
    /// The worker can work.
    Ready = 3,
    /// It cannot: the initializer failed.
    Unusable = 4,
    /// The first items of a span returned these values; the answer for the others follows.
    Part = 5,
    /// No answer: it gives back segments.
    Release = 6,
}

/// The header of a frame from a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::process) struct Reply {
    pub(in crate::process) kind: ReplyKind,
    pub(in crate::process) is_attached: bool,
    /// How many of the last items of a span were not begun; of a part, how many it has.
    pub(in crate::process) left: u32,
    pub(in crate::process) length: u64,
    pub(in crate::process) nanoseconds: u64,
    pub(in crate::process) number: u64,
}

impl Reply {
    pub(in crate::process) fn encode(&self) -> [u8; HEADER] {
        let kinds = (self.kind as u32 | flag(self.is_attached), self.left);
        encode(kinds, [self.length, self.nanoseconds, self.number])
    }

    pub(in crate::process) fn decode(bytes: &[u8]) -> Result<Self, Corrupt> {
        let ((kind, left), [length, nanoseconds, number]) = decode(bytes)?;
        let is_attached = kind & ATTACHED != 0;
        let kind = match kind & !ATTACHED {
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
            left,
            length,
            nanoseconds,
            number,
        })
    }
}

fn flag(is_attached: bool) -> u32 {
    if is_attached { ATTACHED } else { 0 }
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

/// The bytes of a frame with so many bytes of payload, if that is a number.
pub(in crate::process) fn padded(length: u64) -> Option<u64> {
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
        fn headers_come_back(is_attached: bool, length: u64, function: u64, number: u64) {
            let call = Call { order: Order::Call, is_attached, length, function, number };
            prop_assert_eq!(Call::decode(&call.encode()), Ok(call));
            let reply = Reply {
                kind: ReplyKind::Value,
                is_attached,
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
