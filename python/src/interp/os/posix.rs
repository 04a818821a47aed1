//! POSIX systems.

use rustix::time::{ClockId, Timespec, clock_gettime};
use std::ffi::{CStr, c_int, c_long, c_ulong, c_void};
use std::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

/// Returns the seconds of the clock that Python adds time limits to.
pub(crate) fn monotonic() -> f64 {
    let time = clock_gettime(ClockId::Monotonic);
    #[allow(clippy::cast_precision_loss, reason = "as in Python's own clock")]
    let (seconds, nanoseconds) = (time.tv_sec as f64, time.tv_nsec as f64);
    seconds + nanoseconds * 1e-9
}

/// Returns the whole seconds of a clock. A handler of signals may call it.
pub(crate) fn seconds() -> i64 {
    clock_gettime(ClockId::Monotonic).tv_sec
}

/// A clock that costs a tenth of the exact one, where there is one.
#[cfg(target_os = "linux")]
const COARSE: ClockId = ClockId::MonotonicCoarse;
#[cfg(not(target_os = "linux"))]
const COARSE: ClockId = ClockId::Monotonic;

/// Notices ticks of the system's clock, which come every few milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Ticks(Option<Timespec>);

impl Ticks {
    /// No tick was noticed yet.
    pub(crate) const NONE: Self = Self(None);

    /// Returns whether the clock has ticked since the last call.
    pub(crate) fn has_ticked(&mut self) -> bool {
        let now = Some(clock_gettime(COARSE));
        let has_ticked = self.0 != now;
        self.0 = now;
        has_ticked
    }
}

/// Returns whether the calling thread is the first of its process, or the one that has forked it.
pub(crate) fn is_first_thread() -> bool {
    // SAFETY: the calls only tell numbers.
    #[cfg(target_os = "linux")]
    return unsafe { libc::getpid() == libc::gettid() };
    // SAFETY: as above.
    #[cfg(not(target_os = "linux"))]
    return unsafe { libc::pthread_main_np() == 1 };
}

/// Returns the number by which Python knows the calling thread.
pub(crate) fn thread_number() -> c_ulong {
    // SAFETY: the call only tells a number.
    let thread = unsafe { libc::pthread_self() };
    thread as c_ulong
}

/// As [`thread_number`], in the type of `PyThreadState_SetAsyncExc`.
pub(crate) fn signed_thread_number() -> c_long {
    thread_number().cast_signed()
}

/// Returns the address of a function of the running program, if it has one of this name.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the name is a text that ends.
    let found = unsafe { libc::dlsym(libc::RTLD_DEFAULT, name.as_ptr()) };
    (!found.is_null()).then_some(found)
}

/// The signal of Ctrl-C.
pub(crate) const INTERRUPT: c_int = libc::SIGINT;

/// Signals that cannot be handled, or that a thread itself causes.
pub(crate) const NEVER_HELD: [c_int; 9] = [
    libc::SIGKILL,
    libc::SIGSTOP,
    libc::SIGSEGV,
    libc::SIGBUS,
    libc::SIGFPE,
    libc::SIGILL,
    libc::SIGTRAP,
    libc::SIGABRT,
    libc::SIGSYS,
];

/// The handler of a signal, with its settings.
#[derive(Clone, Copy)]
pub(crate) struct Action(libc::sigaction);

impl Action {
    /// Makes the action that calls a function. The function calls nothing but what a handler may call.
    pub(crate) fn calling(handler: extern "C" fn(c_int)) -> Self {
        // SAFETY: zero bytes are an action, with an empty set of signals.
        let mut action: libc::sigaction = unsafe { MaybeUninit::zeroed().assume_init() };
        action.sa_sigaction = handler as *const () as usize;
        action.sa_flags = libc::SA_ONSTACK;
        Self(action)
    }

    /// Returns whether the action calls this function.
    pub(crate) fn calls(&self, handler: extern "C" fn(c_int)) -> bool {
        self.0.sa_sigaction == handler as *const () as usize
    }

    /// Returns whether the signal is ignored, or its handler takes more than the signal.
    pub(crate) fn is_not_plain(&self) -> bool {
        self.0.sa_sigaction == libc::SIG_IGN || self.0.sa_flags & libc::SA_SIGINFO != 0
    }

    /// Returns the handler, if it is a function that takes the signal and nothing else.
    pub(crate) fn handler(&self) -> Option<extern "C" fn(c_int)> {
        let handler = self.0.sa_sigaction;
        let is_function = handler != libc::SIG_DFL && !self.is_not_plain();
        // SAFETY: the system has a function there, which takes the signal, by the flags.
        is_function.then(|| unsafe { std::mem::transmute::<usize, extern "C" fn(c_int)>(handler) })
    }

    /// Sets this action for a signal, and returns the former one.
    pub(crate) fn exchange(&self, signal: c_int) -> Option<Self> {
        let mut before = MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: the action is ours, or one that the system has given us; the system fills the other.
        unsafe {
            let failed = libc::sigaction(signal, &raw const self.0, before.as_mut_ptr()) != 0;
            (!failed).then(|| Self(before.assume_init()))
        }
    }
}

/// Returns the number of this process.
pub(crate) fn process() -> u32 {
    std::process::id()
}

/// Sends a signal to a process. Returns whether the process is there.
pub(crate) fn kill(process: u32, signal: c_int) -> bool {
    let process = libc::pid_t::try_from(process).unwrap_or(libc::pid_t::MAX);
    // SAFETY: the call has no conditions.
    unsafe { libc::kill(process, signal) == 0 }
}

/// Writes bytes to a descriptor, as many as it takes. A handler of signals may call it.
pub(crate) fn write_bytes(fd: c_int, mut bytes: &[u8]) {
    if fd < 0 {
        return;
    }
    while !bytes.is_empty() {
        // SAFETY: the bytes are there; a descriptor that is not open is an error. The call changes no error
        // number of the interrupted thread, as it goes past the C library.
        let written = unsafe { rustix::io::write(BorrowedFd::borrow_raw(fd), bytes) };
        match written {
            Ok(written) if written > 0 => bytes = &bytes[written..],
            Err(rustix::io::Errno::INTR) => {}
            _ => return,
        }
    }
}

/// Raises a signal in the calling thread.
pub(crate) fn raise(signal: c_int) {
    // SAFETY: the call has no conditions.
    unsafe { libc::raise(signal) };
}
