//! The environment of tasks: what a host must have in common with a client to run its tasks.
//!
//! In Rust that is the build: a task names its function by a place in the executable. The identity of a build is a
//! hash of the parts of the executable that are loaded. So it is the same on all machines.

#![forbid(unsafe_code)]

use crate::os;
use crate::wire::{Seal, hex};
use ring::digest::{Context, SHA256};
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::sync::OnceLock;

/// Returns the environment of this program, with a tag of its user: a part of a subject. The key is a part of the
/// environment, so that a host with another key never gets the task.
///
/// # Errors
/// When the executable cannot be read.
pub(crate) fn of_this_program(tag: &str, seal: &Seal) -> io::Result<String> {
    static BUILD: OnceLock<[u8; 32]> = OnceLock::new();
    let build = if let Some(build) = BUILD.get() {
        *build
    } else {
        let build = build(&mut File::open(os::executable()?)?)?;
        *BUILD.get_or_init(|| build)
    };
    Ok(named("rust", &build, tag, seal))
}

/// Returns the environment of another frontend, with a tag of its user. As in [`of_this_program`], the key is a part.
pub(crate) fn of_a_frontend(name: &str, tag: &str, seal: &Seal) -> String {
    named(name, name.as_bytes(), tag, seal)
}

fn named(name: &str, content: &[u8], tag: &str, seal: &Seal) -> String {
    let mut hash = Context::new(&SHA256);
    hash.update(content);
    hash.update(std::env::consts::ARCH.as_bytes());
    hash.update(&seal.fingerprint());
    hash.update(tag.as_bytes());
    let hash = hash.finish();
    let hash = hex(hash.as_ref().get(..12).unwrap_or_default());
    format!("{name}-{hash}")
}

/// Returns the hash of the loaded parts of an executable; of the whole file if it is not of the usual format.
fn build(file: &mut File) -> io::Result<[u8; 32]> {
    let mut hash = Context::new(&SHA256);
    let mut buffer = vec![0; 1 << 16];
    let parts = loaded_parts(file)?.unwrap_or_else(|| vec![(0, u64::MAX)]);
    for (start, length) in parts {
        file.seek(SeekFrom::Start(start))?;
        let mut part = (&mut *file).take(length);
        loop {
            let count = part.read(&mut buffer)?;
            match buffer.get(..count) {
                None | Some([]) => break,
                Some(bytes) => hash.update(bytes),
            }
        }
    }
    let mut bytes = [0; 32];
    bytes.copy_from_slice(hash.finish().as_ref());
    Ok(bytes)
}

/// Returns the places of the loaded parts of an ELF file of 64 bits, with their lengths.
fn loaded_parts(file: &mut File) -> io::Result<Option<Vec<(u64, u64)>>> {
    const PT_LOAD: u32 = 1;
    let mut header = [0; 64];
    file.seek(SeekFrom::Start(0))?;
    if file.read_exact(&mut header).is_err() || header[..5] != *b"\x7fELF\x02" {
        return Ok(None);
    }
    let word = |bytes: &[u8], at: usize| {
        let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
        bytes.map_or(0, |bytes| u64::from_ne_bytes(*bytes))
    };
    let short = |at: usize| u64::from(u16::from_ne_bytes([header[at], header[at + 1]]));
    let (offset, size, count) = (word(&header, 32), short(54).max(56), short(56));
    let mut parts = Vec::new();
    for index in 0..count {
        let mut entry = [0; 56];
        file.seek(SeekFrom::Start(offset + index * size))?;
        file.read_exact(&mut entry)?;
        let kind = u32::from_ne_bytes([entry[0], entry[1], entry[2], entry[3]]);
        if kind == PT_LOAD {
            parts.push((word(&entry, 8), word(&entry, 32)));
        }
    }
    Ok((!parts.is_empty()).then_some(parts))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn a_copy_of_an_executable_is_the_same_build_and_a_changed_one_is_not() {
        let original = std::fs::read(os::executable().unwrap()).unwrap();
        let hash_of = |bytes: &[u8]| {
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(bytes).unwrap();
            build(&mut file).unwrap()
        };
        let ours = build(&mut File::open(os::executable().unwrap()).unwrap()).unwrap();
        assert_eq!(hash_of(&original), ours);
        let mut changed = original;
        // A byte of the header, which is loaded.
        changed[60] ^= 1;
        assert_ne!(hash_of(&changed), ours);
        assert_ne!(hash_of(b"#!/bin/sh\n"), hash_of(b"#!/bin/bash\n"));
    }

    #[test]
    fn the_tag_and_the_key_are_part_of_the_environment() {
        let (keyed, open) = (Seal::new(Some(b"secret")), Seal::new(None));
        let one = of_this_program("one", &keyed).unwrap();
        assert_eq!(one, of_this_program("one", &keyed).unwrap());
        assert_ne!(one, of_this_program("two", &keyed).unwrap());
        assert_ne!(one, of_this_program("one", &open).unwrap());
        let python = of_a_frontend("python", "one", &keyed);
        assert!(python.starts_with("python-"), "{python}");
        assert_eq!(python, of_a_frontend("python", "one", &keyed));
        assert_ne!(python, of_a_frontend("python", "two", &keyed));
        assert_ne!(python, of_a_frontend("python", "one", &open));
    }
}
