//! Large pages of memory: each small page costs a page fault when it is first written.

use std::alloc::{Layout, alloc_zeroed, dealloc, handle_alloc_error};
use std::ptr::NonNull;
use std::slice;
use std::sync::atomic::AtomicU64;

/// The size of a large page, in bytes.
const LARGE: usize = 2 << 20;

/// The number of words of a [`LargePage`].
pub(crate) const WORDS: usize = LARGE / 8;

const LAYOUT: Layout = Layout::new::<[AtomicU64; WORDS]>();

/// Words that fill one large page, if the system has such pages.
///
/// The system maps the page, whose words it has made 0. An allocator would write them a second time, which takes
/// longer than all page faults.
pub(crate) struct LargePage {
    /// The first word of `WORDS` words, which are this object's own.
    words: NonNull<AtomicU64>,
    /// Whether the words are a mapping of their own, of `LARGE` bytes, or an allocation with `LAYOUT`.
    is_mapped: bool,
}

// SAFETY: the words are this object's own, and atomic.
unsafe impl Send for LargePage {}
// SAFETY: as above.
unsafe impl Sync for LargePage {}

impl LargePage {
    /// Makes words that are 0.
    pub(crate) fn zeroed() -> Self {
        map().unwrap_or_else(|| {
            // SAFETY: the layout has a size.
            let words = unsafe { alloc_zeroed(LAYOUT) };
            let words = NonNull::new(words).unwrap_or_else(|| handle_alloc_error(LAYOUT));
            Self {
                words: words.cast(),
                is_mapped: false,
            }
        })
    }

    /// Returns the words.
    pub(crate) fn words(&self) -> &[AtomicU64] {
        // SAFETY: there are so many words, which were 0 at first, and stay as long as this object.
        unsafe { slice::from_raw_parts(self.words.as_ptr(), WORDS) }
    }
}

impl Drop for LargePage {
    fn drop(&mut self) {
        let words = self.words.as_ptr();
        if self.is_mapped {
            #[cfg(all(unix, not(miri)))]
            // SAFETY: the mapping is this object's own. It is whole, so that unmapping does not fail.
            unsafe {
                let _ = rustix::mm::munmap(words.cast(), LARGE);
            }
        } else {
            // SAFETY: allocated with this layout.
            unsafe { dealloc(words.cast(), LAYOUT) };
        }
    }
}

/// Maps a large page; none if the system refuses.
#[cfg(all(unix, not(miri)))]
fn map() -> Option<LargePage> {
    use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
    let protection = ProtFlags::READ | ProtFlags::WRITE;
    // Room of twice the size has an aligned page in it.
    // SAFETY: a new mapping, at an address that the system chooses.
    let room = unsafe {
        mmap_anonymous(
            std::ptr::null_mut(),
            2 * LARGE,
            protection,
            MapFlags::PRIVATE,
        )
    };
    let room = room.ok()?.cast::<u8>();
    let before = room.align_offset(LARGE).min(LARGE);
    let start = room.wrapping_add(before);
    // SAFETY: the parts of the mapping before and behind the page, which nothing uses. If the system keeps one, only
    // addresses are lost.
    unsafe {
        if before > 0 {
            let _ = munmap(room.cast(), before);
        }
        if before < LARGE {
            let _ = munmap(start.wrapping_add(LARGE).cast(), LARGE - before);
        }
        advise(start, LARGE);
    }
    Some(LargePage {
        words: NonNull::new(start.cast())?,
        is_mapped: true,
    })
}

#[cfg(not(all(unix, not(miri))))]
fn map() -> Option<LargePage> {
    None
}

/// Asks the system for large pages in the room of an empty buffer.
#[cfg_attr(
    not(all(feature = "process", unix)),
    allow(dead_code, reason = "buffers are for other processes")
)]
pub(crate) fn prefer_large_pages(bytes: &mut Vec<u8>) {
    const PAGE: usize = 4096;
    let start = bytes.as_mut_ptr();
    let skipped = start.align_offset(PAGE);
    let whole = bytes.capacity().saturating_sub(skipped) / PAGE * PAGE;
    // SAFETY: whole pages inside the buffer's room.
    unsafe { advise(start.wrapping_add(skipped), whole) };
}

/// Asks the system for large pages. The advice changes no content, and that it is not taken does no harm.
///
/// # Safety
/// The bytes are whole pages of one allocation.
unsafe fn advise(start: *mut u8, length: usize) {
    #[cfg(target_os = "linux")]
    // SAFETY: the caller's.
    unsafe {
        // Without large pages, the memory comes by small ones.
        let _ = rustix::mm::madvise(start.cast(), length, rustix::mm::Advice::LinuxHugepage);
    }
    #[cfg(not(target_os = "linux"))]
    let _ = (start, length);
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn a_large_page_has_words_that_are_0_and_can_be_written() {
        let page = LargePage::zeroed();
        let words = page.words();
        assert_eq!(words.len(), WORDS);
        assert!(words.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        words[WORDS - 1].store(7, Ordering::Relaxed);
        assert_eq!(words[WORDS - 1].load(Ordering::Relaxed), 7);
        if cfg!(all(unix, not(miri))) {
            assert_eq!(words.as_ptr().addr() % LARGE, 0);
        }
    }

    #[test]
    fn pages_that_are_dropped_leave_the_others_alone() {
        let mut pages: Vec<LargePage> = (0..6).map(|_| LargePage::zeroed()).collect();
        for (number, page) in (0..).zip(&pages) {
            page.words()
                .iter()
                .for_each(|word| word.store(number, Ordering::Relaxed));
        }
        pages.swap_remove(4);
        pages.swap_remove(0);
        for (page, number) in pages.iter().zip([5, 1, 2, 3]) {
            let is_own = |word: &AtomicU64| word.load(Ordering::Relaxed) == number;
            assert!(page.words().iter().all(is_own));
        }
    }
}
