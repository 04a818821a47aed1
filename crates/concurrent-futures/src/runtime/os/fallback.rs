//! The slower ways that the engine goes where the system refuses the first choice, for the log.
//!
//! Each is noted once in a process: by the code that meets the refusal, under whatever locks. The supervisor of a pool
//! takes the notes, and logs them outside of locks. A worker sends its notes to its pool.

#![forbid(unsafe_code)]

use std::fmt::Display;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard};
use std::thread;

/// A job that is done in a slower way.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum Job {
    All,
    Bell,
    Sockets,
    Memory,
    Buffers,
    Watch,
    Signals,
    Naps,
    ParentDeath,
}

impl Job {
    /// Says how the job is done now.
    fn way(self) -> &'static str {
        match self {
            Self::All => "process pools use the portable backend",
            Self::Bell => "supervisors are woken through a pipe",
            Self::Sockets => "channels have sockets of bytes, and workers use portable calls",
            Self::Memory => "channels have shared memory that is not sealed",
            Self::Buffers => "long buffers go through the streams",
            Self::Watch => "pools look for dead workers every 50 ms",
            Self::Signals => "workers are signalled by process id",
            Self::Naps => "waits for other processes end by a socket only",
            Self::ParentDeath => "a thread of each worker watches the parent",
        }
    }
}

/// The largest number of notes that are kept, so that workers cannot fill the memory.
const MOST: usize = 64;

static NOTED: AtomicU32 = AtomicU32::new(0);
static IS_ANY: AtomicBool = AtomicBool::new(false);
static NOTES: Mutex<Notes> = Mutex::new(Notes {
    known: Vec::new(),
    taken: 0,
});

/// All notes so far.
struct Notes {
    known: Vec<String>,
    /// The number of notes that were taken.
    taken: usize,
}

/// Notes that a job is done in a slower way from now on, and why.
pub(crate) fn note(job: Job, why: &dyn Display) {
    let bit = 1 << job as u32;
    // ORDERING: Relaxed in this file: the lock orders the notes.
    if NOTED.load(Ordering::Relaxed) & bit == 0 {
        NOTED.fetch_or(bit, Ordering::Relaxed);
        note_text(format!("{}: {why}", job.way()));
    }
}

/// Notes the text of a note of another process.
pub(crate) fn note_text(text: String) {
    let Some(mut notes) = lock() else {
        return;
    };
    if notes.known.len() < MOST && !notes.known.contains(&text) {
        notes.known.push(text);
        IS_ANY.store(true, Ordering::Relaxed);
    }
}

/// Locks the notes. Returns none in a fork in which no thread will unlock them: another thread held the lock when the
/// process was forked. Holders of the lock do next to nothing.
fn lock() -> Option<MutexGuard<'static, Notes>> {
    const TURNS: usize = 10_000;
    (0..TURNS).find_map(|_| {
        let guard = NOTES.try_lock().ok();
        if guard.is_none() {
            thread::yield_now();
        }
        guard
    })
}

/// Returns whether there are notes to take.
pub(crate) fn is_any() -> bool {
    IS_ANY.load(Ordering::Relaxed)
}

/// Takes the notes that were not taken before.
pub(crate) fn take() -> Vec<String> {
    let Some(mut notes) = lock() else {
        return Vec::new();
    };
    IS_ANY.store(false, Ordering::Relaxed);
    let taken = notes.taken;
    notes.taken = notes.known.len();
    notes.known[taken..].to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slower_way_is_told_once_with_its_reason() {
        let mine = |notes: Vec<String>| notes.iter().filter(|note| note.contains("test")).count();
        for _ in 0..2 {
            note_text(String::from("a test of this file: refused"));
        }
        // Another test of this process may take the note.
        assert!(mine(take()) <= 1);
        note_text(String::from("a test of this file: refused"));
        assert_eq!(mine(take()), 0);
    }
}
