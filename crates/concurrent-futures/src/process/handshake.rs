//! The first packet to a worker: what it needs to work, and whose it is.
//!
//! Version and identity come first and in the same place in all versions, so that a
//! program of another version can tell that it is one. A worker of another build answers
//! with its own identity, and ends.

#![forbid(unsafe_code)]

use super::image::Identity;
use serde::{Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"CFUTURE1";

/// The identity of the workers of other faces, which load the same library.
pub(super) const FACE: Identity = *b"face 1\0\0\0\0\0\0\0\0\0\0";

/// The second packet to a worker of another face, with its end of the lane.
pub(super) const LANE: &[u8] = b"lane";
/// The same without: nothing goes beside the streams.
pub(super) const NO_LANE: &[u8] = b"none";

/// What a worker is told.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Setup {
    /// The length of each stream.
    pub(super) capacity: u64,
    /// The most memory that the worker may have, in bytes.
    pub(super) memory_limit: Option<u64>,
    /// The number of the segment that the streams are in, if no file comes with this.
    pub(super) segment: Option<i32>,
}

/// Why a first packet is not what it should be.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Mismatch {
    /// It is of another build or version.
    OtherBuild,
    /// It makes no sense.
    Garbled,
}

impl Setup {
    pub(super) fn encode(&self, identity: Identity) -> Vec<u8> {
        let bytes = [&MAGIC[..], &identity[..]].concat();
        // Numbers always serialise.
        postcard::to_extend(self, bytes).unwrap_or_default()
    }

    pub(super) fn decode(bytes: &[u8], identity: Identity) -> Result<Self, Mismatch> {
        let (magic, rest) = bytes.split_first_chunk().ok_or(Mismatch::Garbled)?;
        let (theirs, rest) = rest.split_first_chunk().ok_or(Mismatch::Garbled)?;
        if (*magic, *theirs) != (MAGIC, identity) {
            return Err(Mismatch::OtherBuild);
        }
        postcard::from_bytes(rest).map_err(|_| Mismatch::Garbled)
    }
}

/// What a worker that cannot work tells before it ends.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Refusal(pub(super) String);

impl Refusal {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(self.0.as_bytes());
        bytes.truncate(1000);
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Self {
        let text = bytes.strip_prefix(&MAGIC).unwrap_or(bytes);
        Self(String::from_utf8_lossy(text).into_owned())
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
        }
    }
}
