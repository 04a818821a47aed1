//! The source of shared memory: a file that only processes with its descriptor can reach.
//!
//! The first choice is a file in memory, which has no name and is sealed at its size. Where the system
//! refuses the call (old kernels, sandboxes), a file without a name in a folder does the same, but cannot
//! be sealed:
//!
//! | kind | sealed | needs |
//! |---|---|---|
//! | `memfd_create` | yes | Linux, and the call |
//! | `shm_open`, unlinked at once | no | the folder `/dev/shm`, or the system's own names |
//! | `O_TMPFILE` in [`folders`] | no | Linux, and a folder to write in, whose file system has such files |
//! | a file that is created and unlinked at once | no | a folder to write in |
//!
//! A process that is killed between the steps of the last two kinds leaves a name of a file without a length. A
//! later process that has the same number takes another name.
//!
//! # Invariants
//! 1. A file is not longer than this process may write (`RLIMIT_FSIZE`): to make it so would end the
//!    process by `SIGXFSZ`. Files in memory count for that limit, too.
//! 2. A sealed file cannot be cut off, so that a reader of its mapping is not killed by `SIGBUS`. An unsealed
//!    file is not cut off either: only this program's processes reach it, as the file has no name.

#![forbid(unsafe_code)]

use crate::runtime::os::backend;
use crate::runtime::os::limits;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::env;
use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a file of this length for memory that two processes share. A file in a folder gets all of its pages at once,
/// as the folder may be full. A process that is refused a page later is killed.
///
/// # Errors
/// Why there is none, of the last kind that was tried.
pub(crate) fn create(name: &str, length: usize) -> io::Result<OwnedFd> {
    check_limit(length)?;
    let refused = if backend::is_portable() {
        String::from("memfd_create is not used")
    } else {
        match in_memory(name, length, Pages::OnDemand) {
            Ok(file) => return Ok(file),
            // These are no reason to try another kind: a short resource is short for all.
            Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC)) => {
                return Err(error.into());
            }
            Err(error) => {
                note(error);
                format!("memfd_create is refused ({error})")
            }
        }
    };
    let mut last = match in_shared_names(length) {
        Ok(file) => return Ok(file),
        Err(error) => io::Error::from(error),
    };
    for folder in folders() {
        match unnamed(&folder, name).and_then(|file| allocate(&file, length).map(|()| file)) {
            Ok(file) => return Ok(file),
            Err(error) => last = error.into(),
        }
    }
    let text = format!(
        "there is no shared memory: {refused}, and there are no files in /dev/shm or in the folder for \
         temporary files ({last})"
    );
    Err(Refused { text, last }.into())
}

/// Makes a file for a segment, which has all of its pages, and cannot be cut off where the system has such files.
///
/// # Errors
/// Why the system refuses.
pub(crate) fn create_segment(name: &str, length: usize) -> io::Result<OwnedFd> {
    check_limit(length)?;
    if backend::is_portable() {
        // Not in the folder for temporary files: a disk is slower than the streams.
        return Ok(in_shared_names(length)?);
    }
    Ok(in_memory(name, length, Pages::All)?)
}

/// Returns whether a file cannot be cut off.
pub(crate) fn is_sealed(file: &OwnedFd) -> bool {
    #[cfg(target_os = "linux")]
    return rustix::fs::fcntl_get_seals(file)
        .is_ok_and(|seals| seals.contains(rustix::fs::SealFlags::SHRINK));
    #[cfg(not(target_os = "linux"))]
    {
        let _ = file;
        false
    }
}

/// Makes a file in memory that can be cut off.
#[cfg(all(test, not(loom_models)))]
pub(crate) fn unsealed(length: usize) -> OwnedFd {
    in_shared_names(length).unwrap()
}

/// Returns the number that distinguishes a file from others.
pub(crate) fn inode(file: BorrowedFd<'_>) -> io::Result<u64> {
    Ok(rustix::fs::fstat(file)?.st_ino)
}

/// Returns an error if a file of this length may not be written.
fn check_limit(length: usize) -> io::Result<()> {
    match limits::file_size() {
        Some(limit) if (length as u64) > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// When the pages of a file are there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Pages {
    OnDemand,
    All,
}

/// Returns a file in memory, which has no name in any folder.
#[cfg(target_os = "linux")]
fn in_memory(name: &str, length: usize, pages: Pages) -> Result<OwnedFd, Errno> {
    use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags)?;
    let seals = match pages {
        Pages::OnDemand => {
            rustix::fs::ftruncate(&file, length as u64)?;
            SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL
        }
        Pages::All => loop {
            match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, length as u64) {
                Err(Errno::INTR) => {}
                allocated => {
                    allocated?;
                    break SealFlags::SHRINK | SealFlags::SEAL;
                }
            }
        },
    };
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

#[cfg(not(target_os = "linux"))]
fn in_memory(_: &str, _: usize, _: Pages) -> Result<OwnedFd, Errno> {
    Err(Errno::NOSYS)
}

#[cfg(target_os = "linux")]
fn note(error: Errno) {
    use crate::runtime::os::fallback::{self, Job};
    fallback::note(Job::Memory, &error);
}

#[cfg(not(target_os = "linux"))]
fn note(_: Errno) {}

/// Gives a file its length and its pages.
fn allocate(file: &OwnedFd, length: usize) -> Result<(), Errno> {
    #[cfg(not(target_vendor = "apple"))]
    loop {
        let flags = rustix::fs::FallocateFlags::empty();
        match rustix::fs::fallocate(file, flags, 0, length as u64) {
            Err(Errno::INTR) => {}
            // The file system, or the sandbox, does not know it.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM | Errno::INVAL) => break,
            allocated => return allocated,
        }
    }
    rustix::fs::ftruncate(file, length as u64)
}

/// Returns the folders for files, the best first.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/dev/shm"), env::temp_dir()];
    folders.extend(["/tmp", "/var/tmp"].map(PathBuf::from));
    folders
}

/// The access to files without a name: its owner's.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// Returns the next name that this process has not used.
fn fresh(name: &str) -> String {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    // ORDERING: Relaxed, as only the number matters.
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    format!("{name}-{}-{number}", std::process::id())
}

/// Returns a new file in the system's names for shared memory, with all of its pages, and without a name.
fn in_shared_names(length: usize) -> Result<OwnedFd, Errno> {
    use rustix::shm::OFlags;
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL;
    loop {
        // Some systems take 31 bytes only.
        let name = format!("/{}", fresh("cf"));
        match rustix::shm::open(&name, flags, MODE) {
            // Of a process that had the same number, and was killed.
            Err(Errno::EXIST) => {}
            opened => {
                let file = opened?;
                rustix::shm::unlink(&name)?;
                allocate(&file, length)?;
                return Ok(file);
            }
        }
    }
}

/// Returns a new file without a name.
fn unnamed(folder: &Path, name: &str) -> Result<OwnedFd, Errno> {
    #[cfg(target_os = "linux")]
    {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::TMPFILE;
        if let Ok(file) = rustix::fs::open(folder, flags, MODE) {
            return Ok(file);
        }
    }
    named(folder, name)
}

/// Returns a new file whose name is taken away at once.
fn named(folder: &Path, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    loop {
        let path = folder.join(fresh(name));
        match rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, MODE) {
            // As above.
            Err(Errno::EXIST) => {}
            opened => {
                let file = opened?;
                rustix::fs::unlink(&path)?;
                return Ok(file);
            }
        }
    }
}

/// The reason why there is no shared memory.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct Refused {
    text: String,
    #[source]
    last: io::Error,
}

impl From<Refused> for io::Error {
    fn from(refused: Refused) -> Self {
        Self::new(refused.last.kind(), refused)
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn an_unnamed_file_has_its_length_and_leaves_no_name_behind() {
        let folder = env::temp_dir().join(format!("unnamed-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let file = unnamed(&folder, "test").unwrap();
        allocate(&file, 12_345).unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 12_345);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 0);
        std::fs::remove_dir(&folder).unwrap();
    }

    #[test]
    fn names_that_a_killed_process_has_left_are_passed_over() {
        let folder = env::temp_dir().join(format!("left-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let next = || fresh("left").rsplit('-').next().map(str::to_owned).unwrap();
        let number: u64 = next().parse().unwrap();
        // Other tests take numbers, too.
        for number in number..number + 100 {
            let name = format!("left-{}-{number}", std::process::id());
            std::fs::write(folder.join(name), "").unwrap();
        }
        let file = named(&folder, "left").unwrap();
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_nlink, 0);
        assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 100);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn files_among_the_names_of_shared_memory_leave_no_name_behind() {
        let file = in_shared_names(12_345).unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        assert_eq!((stat.st_size, stat.st_nlink), (12_345, 0));
        assert!(!is_sealed(&file));
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn a_file_in_memory_is_sealed_at_its_length() {
        for pages in [Pages::OnDemand, Pages::All] {
            let file = in_memory("test", 4096, pages).unwrap();
            assert!(is_sealed(&file));
            assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
            assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 4096);
        }
    }
}
