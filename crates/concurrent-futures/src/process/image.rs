//! The executable that this process runs: where its code lies, and which build it is.
//!
//! Every build lays its functions out at fixed distances from each other, wherever the
//! system maps the whole. So a function travels as its distance from the executable's
//! program headers, and the identity of the build tells whether that means the same on
//! the other side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::sync::OnceLock;

/// The path by which a process finds its own executable, also when that was deleted or
/// replaced since.
pub(super) const EXECUTABLE: &str = "/proc/self/exe";

/// Identifies a build.
pub(super) type Identity = [u8; 16];

/// What a process knows about its executable.
#[derive(Debug)]
pub(super) struct Image {
    /// Where the program headers are in memory.
    base: usize,
    /// The executable's code in memory.
    code: Range<usize>,
    identity: Identity,
}

/// This process's.
///
/// # Errors
/// Why the executable could not be read.
pub(super) fn image() -> io::Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    if let Some(image) = IMAGE.get() {
        return Ok(image);
    }
    let image = Image::load()?;
    Ok(IMAGE.get_or_init(|| image))
}

impl Image {
    fn load() -> io::Result<Self> {
        let mut file = File::open(EXECUTABLE)?;
        let elf = Elf::read(&mut file)?;
        // SAFETY: it has no conditions.
        let base = unsafe { libc::getauxval(libc::AT_PHDR) };
        let base = usize::try_from(base).map_err(|_| invalid())?;
        // The distance between addresses in memory and those in the file.
        let bias = base.wrapping_sub(elf.headers);
        let code = elf.code.start.wrapping_add(bias)..elf.code.end.wrapping_add(bias);
        Ok(Self {
            base,
            code,
            identity: elf.identity(&mut file)?,
        })
    }

    pub(super) fn identity(&self) -> Identity {
        self.identity
    }

    /// How far an address of a function is from the program headers; `None` if it is not
    /// in the executable but in a shared library, which may be anywhere.
    pub(super) fn place_of(&self, address: usize) -> Option<u64> {
        let place = address.wrapping_sub(self.base) as u64;
        self.code.contains(&address).then_some(place)
    }

    /// The address of what is so far from the program headers, if it is code.
    pub(super) fn address_at(&self, place: u64) -> Option<usize> {
        let address = usize::try_from(place).ok()?.wrapping_add(self.base);
        self.code.contains(&address).then_some(address)
    }
}

/// What the file of an executable says; addresses are those that it asks for.
struct Elf {
    /// Where the program headers will be.
    headers: usize,
    code: Range<usize>,
    /// Where the notes are in the file, and how long they are.
    notes: Vec<(u64, usize)>,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PF_X: u32 = 1;

impl Elf {
    /// Reads the headers of a 64-bit file in this machine's byte order, which is what the
    /// running executable is.
    fn read(file: &mut File) -> io::Result<Self> {
        let header = read_at(file, 0, 64)?;
        if header[..5] != *b"\x7fELF\x02" {
            return Err(invalid());
        }
        let (offset, entry_size, count) = (
            number(&header, 32)?,
            usize::from(short(&header, 54)?),
            usize::from(short(&header, 56)?),
        );
        let table = read_at(file, offset, entry_size * count)?;
        let mut headers = None;
        let mut code: Option<Range<usize>> = None;
        let mut notes = Vec::new();
        for entry in table.chunks_exact(entry_size.max(56)) {
            let (kind, flags) = (word(entry, 0)?, word(entry, 4)?);
            let (in_file, file_size) = (number(entry, 8)?, number(entry, 32)?);
            let (address, size) = (size(number(entry, 16)?)?, size(number(entry, 40)?)?);
            if kind == PT_LOAD && (in_file..in_file + file_size).contains(&offset) {
                headers = Some(address + self::size(offset - in_file)?);
            }
            if kind == PT_LOAD && flags & PF_X != 0 {
                let start = code.as_ref().map_or(address, |code| code.start);
                code = Some(start..address + size);
            }
            if kind == PT_NOTE {
                notes.push((in_file, self::size(file_size)?));
            }
        }
        match (headers, code) {
            (Some(headers), Some(code)) => Ok(Self {
                headers,
                code,
                notes,
            }),
            _ => Err(invalid()),
        }
    }

    /// The identity that the linker gave to the build, or else what tells one file from
    /// others; and where code lies.
    fn identity(&self, file: &mut File) -> io::Result<Identity> {
        let mut hash = Hash::new();
        hash.add(env!("CARGO_PKG_VERSION").as_bytes());
        for number in [self.headers, self.code.start, self.code.end] {
            hash.add(&number.to_le_bytes());
        }
        let mut identified = false;
        for &(offset, length) in &self.notes {
            if let Some(identity) = build_id(&read_at(file, offset, length.min(1 << 16))?) {
                hash.add(identity);
                identified = true;
            }
        }
        if !identified {
            let file = file.metadata()?;
            for number in [file.dev(), file.ino(), file.size()] {
                hash.add(&number.to_le_bytes());
            }
            hash.add(&file.mtime().to_le_bytes());
            hash.add(&file.mtime_nsec().to_le_bytes());
        }
        Ok(hash.finish())
    }
}

/// The GNU build identity among notes.
fn build_id(mut notes: &[u8]) -> Option<&[u8]> {
    const NT_GNU_BUILD_ID: u32 = 3;
    loop {
        let name_size = size(word(notes, 0).ok()?.into()).ok()?;
        let content_size = size(word(notes, 4).ok()?.into()).ok()?;
        let kind = word(notes, 8).ok()?;
        let content_at = name_size.checked_next_multiple_of(4)?.checked_add(12)?;
        let end = content_at.checked_add(content_size)?;
        if kind == NT_GNU_BUILD_ID && notes.get(12..16)? == b"GNU\0" {
            return notes.get(content_at..end);
        }
        notes = notes.get(end.checked_next_multiple_of(4)?..)?;
    }
}

fn read_at(file: &mut File, offset: u64, length: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; length];
    file.seek(SeekFrom::Start(offset))?;
    file.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn short(bytes: &[u8], at: usize) -> io::Result<u16> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u16::from_ne_bytes(*bytes))
        .ok_or_else(invalid)
}

fn word(bytes: &[u8], at: usize) -> io::Result<u32> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u32::from_ne_bytes(*bytes))
        .ok_or_else(invalid)
}

fn number(bytes: &[u8], at: usize) -> io::Result<u64> {
    let bytes = bytes.get(at..).and_then(<[u8]>::first_chunk);
    bytes
        .map(|bytes| u64::from_ne_bytes(*bytes))
        .ok_or_else(invalid)
}

fn size(number: u64) -> io::Result<usize> {
    usize::try_from(number).map_err(|_| invalid())
}

fn invalid() -> io::Error {
    io::Error::new(
        io::ErrorKind::InvalidData,
        "the executable is not an ELF file as expected",
    )
}

/// FNV-1a with 128 bits: tells builds apart, and is no defence against anybody.
struct Hash(u128);

impl Hash {
    fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }

    fn finish(self) -> Identity {
        self.0.to_le_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn a_function() {}

    #[test]
    fn code_of_the_executable_has_a_place() {
        let image = image().unwrap();
        let address = a_function as fn() as usize;
        let place = image.place_of(address).unwrap();
        assert_eq!(image.address_at(place), Some(address));
    }

    #[test]
    fn code_of_a_library_and_data_have_none() {
        let image = image().unwrap();
        let library = libc::getpid as unsafe extern "C" fn() -> i32 as usize;
        assert_eq!(image.place_of(library), None);
        assert_eq!(image.place_of((&raw const *image).addr()), None);
        assert_eq!(image.address_at(u64::MAX / 2), None);
    }

    #[test]
    fn a_build_identity_is_found_behind_other_notes() {
        let mut notes = Vec::new();
        for (name, kind, content) in [(b"XYZ\0", 1_u32, &b"12345"[..]), (b"GNU\0", 3, b"abcd")] {
            for number in [4, u32::try_from(content.len()).unwrap(), kind] {
                notes.extend(number.to_ne_bytes());
            }
            notes.extend(name);
            notes.extend(content);
            notes.resize(notes.len().next_multiple_of(4), 0);
        }
        assert_eq!(build_id(&notes), Some(&b"abcd"[..]));
        assert_eq!(build_id(&notes[..notes.len() - 5]), None);
    }
}
