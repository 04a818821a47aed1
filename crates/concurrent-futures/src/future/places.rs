//! The places of a list that are not empty.

#![forbid(unsafe_code)]

use std::sync::OnceLock;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The places of a list that are not empty. Walking them again and again costs no more for places that have
/// become empty. Until the first walk, which most lists do without, the places cost nothing.
#[derive(Debug, Default)]
pub struct Places {
    /// For each place, the place itself or a later place, with only empty places between; the last entry is
    /// the end. Made by the first walk.
    next: OnceLock<Vec<AtomicUsize>>,
}

impl Places {
    /// Adds a place at the end, as the list has got one.
    pub fn push(&mut self) {
        if let Some(next) = self.next.get_mut() {
            next.push(AtomicUsize::new(next.len()));
        }
    }

    /// Notes that a place of the list has become empty.
    pub fn remove(&mut self, place: usize) {
        if let Some(next) = self.next.get_mut()
            && place + 1 < next.len()
        {
            *next[place].get_mut() = place + 1;
        }
    }

    /// Returns the places of the list that are not empty, in their order.
    pub fn iter<T>(&self, list: &[Option<T>]) -> impl Iterator<Item = usize> {
        let next = self.next.get_or_init(|| links(list));
        let end = next.len() - 1;
        let mut from = 0;
        std::iter::from_fn(move || {
            let place = find(next, from);
            from = place + 1;
            (place < end).then_some(place)
        })
    }
}

/// Returns a link for each place of a list, and the end.
fn links<T>(list: &[Option<T>]) -> Vec<AtomicUsize> {
    let link = |(place, item): (usize, &Option<T>)| place + usize::from(item.is_none());
    let links = list.iter().enumerate().map(link);
    links.chain([list.len()]).map(AtomicUsize::new).collect()
}

/// Returns the first place from `place` on that is not empty, or the end.
fn find(links: &[AtomicUsize], mut place: usize) -> usize {
    // ORDERING: Relaxed, here and below: all values that a place has are right, and
    // removing is exclusive.
    loop {
        let next = links[place].load(Ordering::Relaxed);
        if next == place {
            return place;
        }
        // Halves the way for the next time.
        let after = links[next].load(Ordering::Relaxed);
        links[place].store(after, Ordering::Relaxed);
        place = next;
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::Places;

    #[test]
    fn removed_places_are_left_out_and_added_places_are_not() {
        for walks_before in [true, false] {
            let mut places = Places::default();
            let mut list = vec![Some(()); 5];
            if walks_before {
                assert_eq!(places.iter(&list).count(), 5);
            }
            for (removed, left) in [(2, vec![0, 1, 3, 4]), (1, vec![0, 3, 4]), (4, vec![0, 3])] {
                list[removed] = None;
                places.remove(removed);
                if walks_before {
                    assert_eq!(places.iter(&list).collect::<Vec<_>>(), left);
                }
            }
            list.push(Some(()));
            places.push();
            assert_eq!(places.iter(&list).collect::<Vec<_>>(), [0, 3, 5]);
            for removed in [0, 5, 3] {
                list[removed] = None;
                places.remove(removed);
            }
            assert_eq!(places.iter(&list).count(), 0);
            list.push(Some(()));
            places.push();
            assert_eq!(places.iter(&list).collect::<Vec<_>>(), [6]);
        }
    }
}
