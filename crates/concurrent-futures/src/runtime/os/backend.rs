//! The choice between a system's own calls and those that all systems have.
//!
//! Each file of this folder has a first choice and a portable one. The portable one is taken where the system refuses
//! the first, and on systems that have no other. The build (`--cfg portable_backend`) or the environment ([`VARIABLE`])
//! may ask for it everywhere.
//!
//! Both ends of a channel may have chosen differently: the one that is made first decides. A socket of bytes says that
//! its maker has chosen the portable calls, and the memory says itself of which kind it is.

#![forbid(unsafe_code)]

use crate::runtime::os::fallback::{self, Job};
use std::env;
use std::ffi::OsString;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

/// The variable of the environment that chooses: `portable`, or `auto`, which is the default.
pub(crate) const VARIABLE: &str = "CONCURRENT_FUTURES_BACKEND";

/// Whether the system has its own calls, and the build has not ruled them out.
const HAS_CHOICE: bool = cfg!(all(target_os = "linux", not(portable_backend)));

static IS_PORTABLE: AtomicBool = AtomicBool::new(!HAS_CHOICE);

/// The variable has a value without a meaning.
#[derive(Debug, thiserror::Error)]
#[error("{VARIABLE} is {0:?}: set it to \"portable\" or \"auto\", or unset it")]
struct Unknown(OsString);

/// Follows the environment. To be called when a pool is made.
///
/// # Errors
/// When the variable has a value without a meaning.
pub(crate) fn choose() -> io::Result<()> {
    let is_portable = match env::var_os(VARIABLE) {
        None => false,
        Some(value) if value.is_empty() || value == "auto" => false,
        Some(value) if value == "portable" => true,
        Some(value) => {
            let kind = io::ErrorKind::InvalidInput;
            return Err(io::Error::new(kind, Unknown(value)));
        }
    };
    // ORDERING: Relaxed: either choice works, at any time.
    IS_PORTABLE.store(is_portable || !HAS_CHOICE, Ordering::Relaxed);
    if is_portable {
        fallback::note(Job::All, &format_args!("{VARIABLE} asks for it"));
    } else if cfg!(portable_backend) {
        fallback::note(Job::All, &"this build has no other");
    }
    Ok(())
}

/// Makes the choice of the process at the other end of a channel.
pub(crate) fn adopt_portable() {
    // ORDERING: Relaxed, here and below: either choice works, at any time.
    IS_PORTABLE.store(true, Ordering::Relaxed);
}

/// Returns whether the portable calls are chosen.
pub(crate) fn is_portable() -> bool {
    !HAS_CHOICE || IS_PORTABLE.load(Ordering::Relaxed)
}
