//! A list of indices from which any index can be removed.

#![forbid(unsafe_code)]

use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of a list that are not empty. Walking them again and again costs no more for places that have
/// become empty.
#[derive(Debug)]
pub struct Places {
    /// For each place, the place itself or a later place, with only empty places between; the last entry is
    /// the end.
    next: Vec<AtomicUsize>,
}

impl Places {
    /// Makes a list of this length, with no place empty.
    #[must_use]
    pub fn new(length: usize) -> Self {
        Self {
            next: (0..=length).map(AtomicUsize::new).collect(),
        }
    }

    /// Adds a place at the end.
    pub fn push(&mut self) {
        self.next.push(AtomicUsize::new(self.next.len()));
    }

    /// Notes that a place has become empty.
    pub fn remove(&mut self, place: usize) {
        if place + 1 < self.next.len() {
            *self.next[place].get_mut() = place + 1;
        }
    }

    /// Returns the first place from `place` on that is not empty, or the end.
    fn find(&self, mut place: usize) -> usize {
        // ORDERING: Relaxed, here and below: all values that a place has are right, and
        // removing is exclusive.
        loop {
            let next = self.next[place].load(Ordering::Relaxed);
            if next == place {
                return place;
            }
            // Halves the way for the next time.
            let after = self.next[next].load(Ordering::Relaxed);
            self.next[place].store(after, Ordering::Relaxed);
            place = next;
        }
    }

    /// Returns the places that are not empty, in their order.
    pub fn iter(&self) -> impl Iterator<Item = usize> {
        let end = self.next.len() - 1;
        let mut from = 0;
        std::iter::from_fn(move || {
            let place = self.find(from);
            from = place + 1;
            (place < end).then_some(place)
        })
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::Places;

    #[test]
    fn removed_places_are_left_out_and_added_places_are_not() {
        let mut places = Places::new(5);
        for (removed, left) in [(2, vec![0, 1, 3, 4]), (1, vec![0, 3, 4]), (4, vec![0, 3])] {
            places.remove(removed);
            assert_eq!(places.iter().collect::<Vec<_>>(), left);
        }
        places.push();
        assert_eq!(places.iter().collect::<Vec<_>>(), [0, 3, 5]);
        places.remove(0);
        places.remove(5);
        places.remove(3);
        assert_eq!(places.iter().count(), 0);
        places.push();
        assert_eq!(places.iter().collect::<Vec<_>>(), [6]);
    }
}
