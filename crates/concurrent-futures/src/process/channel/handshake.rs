//! The first packet to a worker: its settings, and the build identity of the parent.
//!
//! Version and identity come first, at the same place in all versions, so that a program of another version can
//! recognize the mismatch. A worker of another build answers with its own identity, and ends.

#![forbid(unsafe_code)]

use crate::runtime::os::image::Identity;
use serde::{Deserialize, Serialize};

/// The place of the initializer where there is none.
pub(crate) const NO_FUNCTION: u64 = 0;

const MAGIC: [u8; 8] = *b"CFUTURE1";

/// The identity of the workers of other frontends, which load the same library.
pub(crate) const FRONTEND: Identity = *b"face 1\0\0\0\0\0\0\0\0\0\0";

/// The second packet to a worker of another frontend, with its end of the channel for segments.
pub(crate) const LANE: &[u8] = b"lane";
/// The second packet if there is no channel for segments.
pub(crate) const NO_LANE: &[u8] = b"none";

/// The settings that a worker receives.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Setup {
    /// The length of each stream.
    pub(crate) capacity: u64,
    /// The limit of the worker's memory, in bytes.
    pub(crate) memory_limit: Option<u64>,
    /// The number of the segment with the streams, if no file comes with this packet.
    pub(crate) segment: Option<i32>,
}

/// The reason why a first packet is refused.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Mismatch {
    /// The packet is of another build or version.
    OtherBuild,
    /// The packet makes no sense.
    Garbled,
}

impl Setup {
    pub(crate) fn encode(&self, identity: Identity) -> Vec<u8> {
        let bytes = [&MAGIC[..], &identity[..]].concat();
        // Numbers always serialise.
        postcard::to_extend(self, bytes).unwrap_or_default()
    }

    pub(crate) fn decode(bytes: &[u8], identity: Identity) -> Result<Self, Mismatch> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(Mismatch::Garbled)?;
        let (theirs, rest) = rest.split_first_chunk().ok_or(Mismatch::Garbled)?;
        if (*magic, *theirs) != (MAGIC, identity) {
            return Err(Mismatch::OtherBuild);
        }
        postcard::from_bytes(rest).map_err(|_| Mismatch::Garbled)
    }
}

/// The message of a worker that cannot work, sent before it ends.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Refusal(pub(crate) String);

impl Refusal {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.truncate(1000);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Self {
        let text = bytes.strip_prefix(&MAGIC).unwrap_or(bytes);
        Self(String::from_utf8_lossy(text).into_owned())
    }
}

/// A note of a worker for the log of the pool; see `runtime/os/fallback.rs`.
#[derive(Debug)]
pub(crate) struct Note(pub(crate) String);

impl Note {
    const MAGIC: [u8; 8] = *b"CFUTNOTE";

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Self::MAGIC.to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.truncate(1000);
        bytes
    }

    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let text = bytes.strip_prefix(&Self::MAGIC)?;
        Some(Self(String::from_utf8_lossy(text).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const SETUP: Setup = Setup {
        capacity: 1 << 18,
        memory_limit: Some(1 << 30),
        segment: None,
    };

    #[test]
    fn a_setup_comes_back() {
        let bytes = SETUP.encode([7; 16]);
        assert_eq!(Setup::decode(&bytes, [7; 16]), Ok(SETUP));
    }

    #[test]
    fn another_build_is_told_apart() {
        let bytes = SETUP.encode([7; 16]);
        assert_eq!(Setup::decode(&bytes, [8; 16]), Err(Mismatch::OtherBuild));
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_setup_or_a_mismatch(bytes: Vec<u8>) {
            let _ = Setup::decode(&bytes, [0; 16]);
            let whole = [&SETUP.encode([0; 16])[..24], &bytes].concat();
            let _ = Setup::decode(&whole, [0; 16]);
            let _ = Refusal::decode(&bytes);
            let _ = Note::decode(&bytes);
        }
    }
}
