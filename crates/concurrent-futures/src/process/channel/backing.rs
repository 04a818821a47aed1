//! The source of shared memory: a file that only processes with its descriptor can reach.
//!
//! The first choice is a file in memory, which has no name and is sealed at its size. Where the system
//! refuses the call (old kernels, sandboxes), a file without a name in a folder does the same, but cannot
//! be sealed:
//!
//! | kind | sealed | needs |
//! |---|---|---|
//! | `memfd_create` | yes | the call |
//! | `O_TMPFILE` in [`folders`] | no | a folder to write in, whose file system has such files |
//! | a file that is created and unlinked at once | no | a folder to write in |
//!
//! # Invariants
//! 1. A file is not longer than this process may write (`RLIMIT_FSIZE`): to make it so would end the
//!    process by `SIGXFSZ`. Files in memory count for that limit, too.
//! 2. A sealed file cannot be cut off, so that a reader of its mapping is not killed by `SIGBUS`. An
//!    unsealed one is cut off by nobody: both sides are ours, and the file has no name.

#![forbid(unsafe_code)]

use rustix::fs::{FallocateFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::io::Errno;
use rustix::process::{Resource, getrlimit};
use std::env;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

/// Makes a file of this length. One in a folder has all of its pages from the beginning, as the folder may
/// be full: to be refused a page later is to be killed.
///
/// # Errors
/// Why there is none, of the last kind that was tried.
pub(super) fn create(name: &str, length: usize, seals: SealFlags) -> io::Result<OwnedFd> {
    check_limit(length)?;
    let refused = match in_memory(name, length, seals) {
        Ok(file) => return Ok(file),
        // These are no reason to try another kind: a short resource is short for all.
        Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOSPC)) => {
            return Err(error.into());
        }
        Err(error) => error,
    };
    let mut last = io::Error::from(refused);
    for folder in folders() {
        match unnamed(&folder, name).and_then(|file| allocate(&file, length).map(|()| file)) {
            Ok(file) => return Ok(file),
            Err(error) => last = error.into(),
        }
    }
    let text = format!(
        "there is no shared memory: memfd_create is refused ({refused}), and so are files in /dev/shm \
         and in the folder for temporary files ({last})"
    );
    Err(Refused { text, last }.into())
}

/// Fails if a file of this length may not be written.
pub(super) fn check_limit(length: usize) -> io::Result<()> {
    match getrlimit(Resource::Fsize).current {
        Some(limit) if (length as u64) > limit => Err(Errno::FBIG.into()),
        _ => Ok(()),
    }
}

/// Returns a file in memory.
fn in_memory(name: &str, length: usize, seals: SealFlags) -> Result<OwnedFd, Errno> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create(name, flags)?;
    rustix::fs::ftruncate(&file, length as u64)?;
    rustix::fs::fcntl_add_seals(&file, seals)?;
    Ok(file)
}

/// Gives a file its length and its pages.
fn allocate(file: &OwnedFd, length: usize) -> Result<(), Errno> {
    loop {
        match rustix::fs::fallocate(file, FallocateFlags::empty(), 0, length as u64) {
            Err(Errno::INTR) => {}
            // The file system, or the sandbox, does not know it.
            Err(Errno::OPNOTSUPP | Errno::NOSYS | Errno::PERM) => {
                return rustix::fs::ftruncate(file, length as u64);
            }
            allocated => return allocated,
        }
    }
}

/// Where files may be, the best first.
fn folders() -> Vec<PathBuf> {
    let mut folders = vec![PathBuf::from("/dev/shm"), env::temp_dir()];
    folders.extend(["/tmp", "/var/tmp"].map(PathBuf::from));
    folders
}

/// Returns a new file without a name.
fn unnamed(folder: &Path, name: &str) -> Result<OwnedFd, Errno> {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let mode = Mode::RUSR | Mode::WUSR;
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    if let Ok(file) = rustix::fs::open(folder, flags | OFlags::TMPFILE, mode) {
        return Ok(file);
    }
    loop {
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = folder.join(format!("{name}-{}-{number}", std::process::id()));
        match rustix::fs::open(&path, flags | OFlags::CREATE | OFlags::EXCL, mode) {
            // Of a process that had the same number, and was killed.
            Err(Errno::EXIST) => {}
            opened => {
                let file = opened?;
                rustix::fs::unlink(&path)?;
                return Ok(file);
            }
        }
    }
}

/// Why there is no shared memory.
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
    fn a_file_in_memory_is_sealed_at_its_length() {
        let seals = SealFlags::SHRINK | SealFlags::GROW;
        let file = create("test", 4096, seals).unwrap();
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
        assert_eq!(rustix::fs::fstat(&file).unwrap().st_size, 4096);
    }
}
