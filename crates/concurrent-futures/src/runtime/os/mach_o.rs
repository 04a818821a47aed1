//! The executable of this process on macOS: its code, and the identity that the linker has given it.

use crate::runtime::os::image::{Hash, Image};
use std::slice;

unsafe extern "C" {
    /// Returns the address of a program's or a library's header; 0 is the executable.
    safe fn _dyld_get_image_header(index: u32) -> *const u8;
}

const MAGIC_64: u32 = 0xfeed_facf;
const LC_SEGMENT_64: u32 = 0x19;
const LC_UUID: u32 = 0x1b;
/// The length of the header, which the commands follow.
const HEADER: usize = 32;

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u32::from_ne_bytes(*bytes))
}

fn number(bytes: &[u8], at: usize) -> Option<u64> {
    let bytes = bytes.get(at..)?.first_chunk()?;
    Some(u64::from_ne_bytes(*bytes))
}

/// Returns the image of this process; none if the executable is none of 64 bits.
pub(super) fn load() -> Option<Image> {
    let start = _dyld_get_image_header(0);
    if start.is_null() {
        return None;
    }
    // SAFETY: the system has mapped the header, which stays as long as the process.
    let header = unsafe { slice::from_raw_parts(start, HEADER) };
    if word(header, 0)? != MAGIC_64 {
        return None;
    }
    let length = usize::try_from(word(header, 20)?).ok()?;
    // SAFETY: as above: the header tells the length of the commands behind it.
    let mut commands = unsafe { slice::from_raw_parts(start.add(HEADER), length) };
    let base = start.addr();
    let mut code = None;
    let mut hash = Hash::new();
    hash.add(env!("CARGO_PKG_VERSION").as_bytes());
    while let (Some(kind), Some(size)) = (word(commands, 0), word(commands, 4)) {
        let size = usize::try_from(size).ok()?;
        let command = commands.get(..size)?;
        if kind == LC_SEGMENT_64 && command.get(8..24)?.starts_with(b"__TEXT\0") {
            // The segment begins with the header.
            code = Some(base..base + usize::try_from(number(command, 32)?).ok()?);
        }
        if kind == LC_UUID {
            hash.add(command.get(8..24)?);
        }
        commands = commands.get(size.max(8)..)?;
    }
    let code = code?;
    hash.add(&code.len().to_ne_bytes());
    Some(Image {
        base,
        code,
        // Tables of calls are found on other systems only.
        constants: Vec::new(),
        identity: hash.finish(),
    })
}
