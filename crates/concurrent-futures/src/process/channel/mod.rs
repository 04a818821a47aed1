//! What goes between the supervisor and one worker: two byte streams in shared memory,
//! and a socket that carries wake-ups.
//!
//! | file | holds |
//! |---|---|
//! | `memory.rs` | the shared memory: how it is laid out and mapped |
//! | `backing.rs` | where shared memory comes from: files without a name |
//! | `system_v.rs` | shared memory without a file |
//! | `flag.rs` | how a side sleeps |
//! | `ring.rs` | a byte stream in it, for one writer and one reader |
//! | `frame.rs` | the frames that are written to the streams |
//! | `lane.rs` | long buffers, which go beside the streams |
//! | `socket.rs` | the socket: the handshake, wake-ups, the end of the other side |

#[cfg_attr(loom_models, allow(dead_code))]
mod backing;
mod flag;
mod frame;
mod lane;
#[cfg_attr(loom_models, path = "model_memory.rs")]
mod memory;
mod received;
mod ring;
mod segment;
mod socket;
#[cfg_attr(loom_models, allow(dead_code))]
mod system_v;

pub(super) use frame::{Call, Claim, HEADER, Order, Reply, ReplyKind, padded};
pub(super) use lane::Lane;
pub(super) use memory::{Memory, Shared, reserve};
pub use received::Received;
pub(super) use received::Releases;
pub(super) use ring::{Corrupt, Nap, Reader, Rest, Watch, Writer};
pub(super) use segment::Lent;
pub use segment::{Attachment, Segments};
pub(super) use socket::{Packet, Socket};

/// The bytes of each stream. A frame may be longer: it is written as it is read.
///
/// Small enough to stay in a processor's cache while a large value runs through it,
/// large enough that neither side waits for each piece; measured in `benchmarks`.
pub(super) const CAPACITY: usize = 1024 * 1024;
