//! Windows, where there are threads only.

use std::ffi::{CStr, c_int, c_long, c_void};
use std::mem;
use std::ptr;
use std::sync::OnceLock;
use std::time::Instant;
use windows_sys::Win32::Foundation::HMODULE;
use windows_sys::Win32::System::LibraryLoader::{
    GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS, GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT,
    GetModuleHandleExW, GetProcAddress,
};
use windows_sys::Win32::System::SystemInformation::GetTickCount64;
use windows_sys::Win32::System::Threading::GetCurrentThreadId;

/// Returns the seconds since the first call.
pub(crate) fn monotonic() -> f64 {
    static FIRST: OnceLock<Instant> = OnceLock::new();
    FIRST.get_or_init(Instant::now).elapsed().as_secs_f64()
}

/// Returns the whole seconds of a clock.
pub(crate) fn seconds() -> i64 {
    #[allow(
        clippy::cast_possible_truncation,
        reason = "a process does not live that long"
    )]
    let seconds = monotonic() as i64;
    seconds
}

/// Notices ticks of the system's clock, which come every few milliseconds.
#[derive(Clone, Copy)]
pub(crate) struct Ticks(Option<u64>);

impl Ticks {
    /// No tick was noticed yet.
    pub(crate) const NONE: Self = Self(None);

    /// Returns whether the clock has ticked since the last call.
    pub(crate) fn has_ticked(&mut self) -> bool {
        // SAFETY: the call only tells a number.
        let now = Some(unsafe { GetTickCount64() });
        let has_ticked = self.0 != now;
        self.0 = now;
        has_ticked
    }
}

/// Returns whether the calling thread is the one in which Python handles signals.
pub(crate) fn is_first_thread() -> bool {
    type IsMainThread = unsafe extern "C" fn() -> c_int;
    // Without the function, no thread is taken for that one: what its handlers raise is reported.
    symbol(c"_PyOS_IsMainThread").is_some_and(|found| {
        // SAFETY: the symbol is that function, which only compares the number of the thread.
        unsafe { mem::transmute::<*mut c_void, IsMainThread>(found)() != 0 }
    })
}

/// Returns the number by which Python knows the calling thread, in the type of `PyThreadState_SetAsyncExc`.
pub(crate) fn signed_thread_number() -> c_long {
    // SAFETY: the call only tells a number.
    unsafe { GetCurrentThreadId() }.cast_signed()
}

/// Returns the library in which the interpreter is.
fn interpreter() -> Option<HMODULE> {
    static FOUND: OnceLock<Option<usize>> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let flags =
            GET_MODULE_HANDLE_EX_FLAG_FROM_ADDRESS | GET_MODULE_HANDLE_EX_FLAG_UNCHANGED_REFCOUNT;
        let mut library: HMODULE = ptr::null_mut();
        // A function may have an entry in this module, a variable has its place in CPython's library.
        let variable = (&raw const pyo3::ffi::PyType_Type).cast();
        // SAFETY: the address is one in a library, by the first flag; the call writes the handle.
        let is_found = unsafe { GetModuleHandleExW(flags, variable, &raw mut library) } != 0;
        is_found.then(|| library.expose_provenance())
    });
    found.map(ptr::with_exposed_provenance_mut)
}

/// Returns the address of a function of CPython, if it has one of this name.
pub(crate) fn symbol(name: &CStr) -> Option<*mut c_void> {
    // SAFETY: the library stays loaded; the name is a text that ends.
    let found = unsafe { GetProcAddress(interpreter()?, name.as_ptr().cast()) };
    found.map(|function| function as *mut c_void)
}

/// The signal of Ctrl-C.
pub(crate) const INTERRUPT: c_int = 2;

/// Signals that cannot be handled: none is held in any case.
pub(crate) const NEVER_HELD: [c_int; 0] = [];

/// The handler of a signal. There is none that could be held back: Windows calls a handler in a new thread.
/// So an interrupt in the middle of the start of a thread is as in the standard library.
#[derive(Clone, Copy)]
pub(crate) struct Action(());

impl Action {
    /// Makes the action that calls a function.
    pub(crate) fn calling(_: extern "C" fn(c_int)) -> Self {
        Self(())
    }

    /// Returns whether the action calls this function: never.
    pub(crate) fn calls(self, _: extern "C" fn(c_int)) -> bool {
        false
    }

    /// Returns whether the handler takes more than the signal, so that it cannot be held back.
    pub(crate) fn is_not_plain(self) -> bool {
        true
    }

    /// Returns the handler: none.
    pub(crate) fn handler(self) -> Option<extern "C" fn(c_int)> {
        None
    }

    /// Leaves the handler of a signal as it is.
    pub(crate) fn exchange(self, _: c_int) -> Option<Self> {
        None
    }
}

/// Raises a signal that was held back: there is none.
pub(crate) fn raise(_: c_int) {}
