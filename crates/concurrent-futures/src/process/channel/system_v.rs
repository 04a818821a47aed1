//! Shared memory of the older kind, which has a number instead of a descriptor.
//!
//! It is for processes that get no file: because of a sandbox, at the limit of descriptors, or because
//! they may not write files that long (`RLIMIT_FSIZE` counts files in memory, too). The maker of a
//! segment attaches it and marks it for removal at once. Linux lets others attach it until the last of
//! them is gone, whatever becomes of the processes; only one that is killed in between leaves it behind.
//!
//! A segment cannot be cut off.

use rustix::io::Errno;
use std::io;
use std::ptr::NonNull;

/// A segment, attached.
#[derive(Debug)]
pub(super) struct Attached(NonNull<u8>);

// SAFETY: the address of memory of the whole process, which is accessed as `Memory` says.
unsafe impl Send for Attached {}
// SAFETY: as above.
unsafe impl Sync for Attached {}

impl Attached {
    /// Makes a segment that goes when nobody has it attached any more; returns its number, too.
    pub(super) fn create(length: usize) -> io::Result<(i32, Self)> {
        const OWN: libc::c_int = 0o600;
        // SAFETY: it has no conditions.
        let number = unsafe { libc::shmget(libc::IPC_PRIVATE, length, libc::IPC_CREAT | OWN) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        let attached = Self::at(number);
        // SAFETY: marks our segment for removal; no structure is read.
        unsafe { libc::shmctl(number, libc::IPC_RMID, std::ptr::null_mut()) };
        Ok((number, attached?))
    }

    /// Attaches the segment that another process has made, which must have this length.
    pub(super) fn attach(number: i32, length: usize) -> io::Result<Self> {
        let attached = Self::at(number)?;
        let mut status = std::mem::MaybeUninit::<libc::shmid_ds>::uninit();
        // SAFETY: there is room for what it writes.
        if unsafe { libc::shmctl(number, libc::IPC_STAT, status.as_mut_ptr()) } != 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just written.
        let status = unsafe { status.assume_init() };
        if status.shm_segsz < length {
            return Err(io::ErrorKind::InvalidData.into());
        }
        Ok(attached)
    }

    fn at(number: i32) -> io::Result<Self> {
        // SAFETY: the system chooses an address that is free.
        let address = unsafe { libc::shmat(number, std::ptr::null(), 0) };
        if address.addr() == usize::MAX {
            return Err(io::Error::last_os_error());
        }
        let address = NonNull::new(address.cast());
        address.map(Self).ok_or_else(|| Errno::FAULT.into())
    }

    pub(super) fn start(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: attached there, and detached once; nobody has a reference into it any more.
        unsafe { libc::shmdt(self.0.as_ptr().cast()) };
    }
}
