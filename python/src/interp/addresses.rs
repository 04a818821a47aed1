//! Sets and maps of objects by their addresses.

#[cfg(has_processes)]
use std::collections::HashMap;
use std::collections::HashSet;
use std::hash::{BuildHasherDefault, Hasher};

/// A set of addresses of objects.
pub(crate) type AddressSet = HashSet<usize, BuildHasherDefault<AddressHasher>>;

/// A map from addresses of objects.
#[cfg(has_processes)]
pub(crate) type AddressMap<V> = HashMap<usize, V, BuildHasherDefault<AddressHasher>>;

/// The hash of an address.
#[derive(Default)]
pub(crate) struct AddressHasher(u64);

impl Hasher for AddressHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_usize(usize::from(*byte));
        }
    }

    fn write_usize(&mut self, address: usize) {
        /// An odd number near 2^64 divided by the golden ratio, which spreads the bits.
        const SPREAD: u64 = 0x9e37_79b9_7f4a_7c15;
        // Objects are aligned: the bits in which they differ must come to the lower and the upper bits.
        self.0 = (self.0 ^ address as u64)
            .wrapping_mul(SPREAD)
            .rotate_left(32);
    }
}
