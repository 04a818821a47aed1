//! Shared memory of the older kind, which has a number instead of a descriptor.
//!
//! This memory is for processes that get no file. The reason may be a sandbox, the limit of descriptors, or a
//! limit on the length of files (`RLIMIT_FSIZE` counts files in memory, too). The maker of a segment attaches
//! it and marks it for removal at once. On Linux, other processes can attach a marked segment until the last
//! process has detached it. Only a process that is killed between the two steps leaves the segment behind.
//!
//! A segment cannot be cut off.

use rustix::io::Errno;
use std::io;
use std::ptr::NonNull;

/// A segment that is attached.
#[derive(Debug)]
pub(crate) struct Attached(NonNull<u8>);

// SAFETY: it holds the address of memory of the whole process, which is accessed as `Memory` says.
unsafe impl Send for Attached {}
// SAFETY: `Memory` says how threads access the memory at the same time; `Attached` itself has no state.
unsafe impl Sync for Attached {}

impl Attached {
    /// Makes a segment that is removed when no process has it attached any more. Also returns its number.
    pub(crate) fn create(length: usize) -> io::Result<(i32, Self)> {
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

    /// Attaches a segment that another process has made, which must have this length.
    pub(crate) fn attach(number: i32, length: usize) -> io::Result<Self> {
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

    pub(crate) fn start(&self) -> *mut u8 {
        self.0.as_ptr()
    }
}

impl Drop for Attached {
    fn drop(&mut self) {
        // SAFETY: attached there, and detached once; no reference into the memory is left.
        unsafe { libc::shmdt(self.0.as_ptr().cast()) };
    }
}
