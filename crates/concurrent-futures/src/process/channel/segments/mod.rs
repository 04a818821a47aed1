//! Segments of shared memory, in which long buffers travel beside the streams.
//!
//! | file | holds |
//! |---|---|
//! | `lent.rs` | segments as their owner fills and lends them |
//! | `channel.rs` | the socket that carries segments, and the receipts for them |
//! | `mapped.rs` | segments as the other side maps them |

mod channel;
mod lent;
mod mapped;

pub(crate) use channel::SegmentChannel;
pub(crate) use lent::LentSegments;
pub use lent::{Attachment, Segments};
pub use mapped::MappedSegment;
pub(crate) use mapped::Releases;
