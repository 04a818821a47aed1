//! Large pages of memory: each small page costs a page fault when it is first written.

use std::sync::atomic::AtomicU64;

/// The size of a large page, in bytes.
const LARGE: usize = 2 << 20;

/// The number of words of a [`LargePage`].
pub(crate) const WORDS: usize = LARGE / 8;

/// Words that fill one large page, if the system has such pages.
#[repr(C, align(0x20_0000))]
pub(crate) struct LargePage(pub(crate) [AtomicU64; WORDS]);

impl LargePage {
    /// Allocates words that are 0.
    pub(crate) fn zeroed() -> Box<Self> {
        let mut page = Box::<Self>::new_uninit();
        // SAFETY: the page is this box's own, and its content means nothing yet. The bytes that are 0 make
        // words that are 0.
        unsafe {
            advise(page.as_mut_ptr().cast(), LARGE);
            page.as_mut_ptr().write_bytes(0, 1);
            page.assume_init()
        }
    }
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
        assert!(page.0.iter().all(|word| word.load(Ordering::Relaxed) == 0));
        page.0[WORDS - 1].store(7, Ordering::Relaxed);
        assert_eq!(page.0[WORDS - 1].load(Ordering::Relaxed), 7);
        assert_eq!(std::ptr::from_ref(&*page).addr() % LARGE, 0);
    }
}
