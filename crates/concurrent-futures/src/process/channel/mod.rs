//! The channel between a pool and one worker: two byte streams in shared memory, and a socket for wake-ups.
//!
//! | file | holds |
//! |---|---|
//! | `memory.rs` | the layout of the shared memory, which `runtime/os/shared.rs` makes |
//! | `flag.rs` | the word that says how a side sleeps |
//! | `ring.rs` | a byte stream, for one writer and one reader |
//! | `frame.rs` | the frames that are written to the streams |
//! | `segments/` | long buffers, which go beside the streams |
//! | `handshake.rs` | the first packets, by which both sides check that they fit |

mod flag;
mod frame;
pub(crate) mod handshake;
#[cfg_attr(loom_models, path = "model_memory.rs")]
mod memory;
mod ring;
mod segments;

pub(crate) use frame::{Call, Claim, HEADER, Order, Reply, ReplyKind, STAMP, padded};
pub(crate) use memory::{Memory, reserve};
pub(crate) use ring::{Corrupt, FutexPark, ParkState, Reader, Watch, Writer};
pub use segments::{Attachment, MappedSegment, Segments};
pub(crate) use segments::{LentSegments, Releases, SegmentChannel};

/// The length of each stream. A frame may be longer: it is written while it is read.
///
/// The size is small enough to stay in a processor's cache while a large value runs through the stream. It is
/// large enough that neither side waits for each piece. `benchmarks` measures both.
pub(crate) const CAPACITY: usize = 1024 * 1024;
