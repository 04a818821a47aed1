//! The executable of this process: its code's addresses, and its build identity.
//!
//! Every build lays its functions out at fixed distances from each other, wherever the system maps them. So a
//! function is sent as its distance from the executable's program headers. The identity of the build tells
//! whether that distance means the same function on the other side.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
#[cfg(target_os = "linux")]
use std::{
    ffi::{CStr, OsStr, c_char},
    os::unix::ffi::OsStrExt,
    ptr, slice,
};

/// The path of a process's own executable, which is right also when the file was deleted or replaced.
#[cfg(target_os = "linux")]
const BY_PROC: &str = "/proc/self/exe";

/// Returns the path by which a process finds its own executable. On Linux, the path is right also when the file was
/// deleted or replaced. Without `/proc`, the path is the one with which the program was started; [`image`] fails if
/// another file is there meanwhile.
///
/// # Errors
/// When the system does not tell the path.
#[cfg(target_os = "linux")]
pub(crate) fn executable() -> io::Result<PathBuf> {
    if File::open(BY_PROC).is_ok() {
        Ok(PathBuf::from(BY_PROC))
    } else {
        started_with()
    }
}

/// Returns the path by which a process finds its own executable.
///
/// # Errors
/// When the system does not tell the path.
#[cfg(not(target_os = "linux"))]
pub(crate) fn executable() -> io::Result<PathBuf> {
    std::env::current_exe()
}

/// Returns the path with which this program was started, by which the file is found from any folder.
#[cfg(target_os = "linux")]
fn started_with() -> io::Result<PathBuf> {
    static PATH: OnceLock<PathBuf> = OnceLock::new();
    if let Some(path) = PATH.get() {
        return Ok(path.clone());
    }
    // SAFETY: it has no conditions.
    let name = usize::try_from(unsafe { libc::getauxval(libc::AT_EXECFN) }).unwrap_or(0);
    let name = ptr::with_exposed_provenance::<c_char>(name);
    if name.is_null() {
        return Err(io::ErrorKind::NotFound.into());
    }
    // SAFETY: the system gives each program this string, which stays as long as the program.
    let name = unsafe { CStr::from_ptr(name) };
    let path = Path::new(OsStr::from_bytes(name.to_bytes())).canonicalize()?;
    Ok(PATH.get_or_init(|| path).clone())
}

/// Returns the address of the program headers of the executable, if the system tells the address.
#[cfg(target_os = "linux")]
fn program_headers() -> Option<usize> {
    // SAFETY: it has no conditions.
    let base = unsafe { libc::getauxval(libc::AT_PHDR) };
    usize::try_from(base).ok()
}

#[cfg(not(any(target_os = "linux", target_vendor = "apple")))]
fn program_headers() -> Option<usize> {
    unsafe extern "C" fn first(
        info: *mut libc::dl_phdr_info,
        _: usize,
        found: *mut std::ffi::c_void,
    ) -> libc::c_int {
        // SAFETY: the system passes the description of the executable first, and our pointer.
        unsafe { *found.cast::<usize>() = (*info).dlpi_phdr.addr() };
        1
    }
    let mut found = 0_usize;
    // SAFETY: the function is called before the call returns, with a pointer that is valid until then.
    unsafe { libc::dl_iterate_phdr(Some(first), (&raw mut found).cast()) };
    (found != 0).then_some(found)
}

/// The identity of a build.
pub(crate) type Identity = [u8; 16];

/// The executable of a process, in memory.
#[derive(Debug)]
pub(crate) struct Image {
    /// The address of the program headers in memory.
    pub(super) base: usize,
    /// The executable's code in memory.
    pub(super) code: Range<usize>,
    /// The executable's constants in memory: what is mapped from the file and cannot be written.
    pub(super) constants: Vec<Range<usize>>,
    pub(super) identity: Identity,
}

/// Returns the image of this process.
///
/// # Errors
/// Why the executable could not be read.
pub(crate) fn image() -> io::Result<&'static Image> {
    static IMAGE: OnceLock<Image> = OnceLock::new();
    if let Some(image) = IMAGE.get() {
        return Ok(image);
    }
    let image = Image::load(&executable()?)?;
    Ok(IMAGE.get_or_init(|| image))
}

impl Image {
    /// Loads the image from a file of the running program.
    #[cfg(not(target_vendor = "apple"))]
    fn load(path: &Path) -> io::Result<Self> {
        let mut file = File::open(path)?;
        let elf = Elf::read(&mut file)?;
        let base = program_headers().ok_or_else(invalid)?;
        #[cfg(target_os = "linux")]
        if path != Path::new(BY_PROC) && !elf.is_running(base, &mut file)? {
            return Err(io::Error::new(
                io::ErrorKind::NotFound,
                "the executable was replaced since the program was started",
            ));
        }
        // The distance between addresses in memory and those in the file.
        let bias = base.wrapping_sub(elf.headers);
        let in_memory =
            |range: &Range<usize>| range.start.wrapping_add(bias)..range.end.wrapping_add(bias);
        Ok(Self {
            base,
            code: in_memory(&elf.code),
            constants: elf.constants.iter().map(in_memory).collect(),
            identity: elf.identity(&mut file)?,
        })
    }

    #[cfg(target_vendor = "apple")]
    fn load(_: &Path) -> io::Result<Self> {
        super::mach_o::load().ok_or_else(invalid)
    }

    pub(crate) fn identity(&self) -> Identity {
        self.identity
    }

    /// Returns the distance of a function's address from the program headers. `None` if the function is not
    /// in the executable but in a shared library, which may be anywhere.
    pub(crate) fn place_of(&self, address: usize) -> Option<u64> {
        let place = address.wrapping_sub(self.base) as u64;
        self.code.contains(&address).then_some(place)
    }

    /// Returns the distance of a constant's address from the program headers, if it is one of the executable.
    pub(crate) fn constant_place_of(&self, address: usize) -> Option<u64> {
        let place = address.wrapping_sub(self.base) as u64;
        self.constant_at(place, 1).map(|_| place)
    }

    /// Returns the address at this distance from the program headers, if `length` bytes of constants are there.
    pub(crate) fn constant_at(&self, place: u64, length: usize) -> Option<usize> {
        let address = usize::try_from(place).ok()?.wrapping_add(self.base);
        let end = address.checked_add(length)?;
        let is_inside = |range: &Range<usize>| range.start <= address && end <= range.end;
        self.constants.iter().any(is_inside).then_some(address)
    }

    /// Returns the address at this distance from the program headers, if it is in code.
    pub(crate) fn address_at(&self, place: u64) -> Option<usize> {
        let address = usize::try_from(place).ok()?.wrapping_add(self.base);
        self.code.contains(&address).then_some(address)
    }
}

/// The program headers of an executable file. Addresses are those that the file asks for.
struct Elf {
    /// The address of the program headers.
    headers: usize,
    code: Range<usize>,
    /// The parts that cannot be written once the program runs.
    constants: Vec<Range<usize>>,
    /// The places of the notes in the file, their lengths, and their addresses.
    notes: Vec<(u64, usize, usize)>,
    /// The program headers.
    #[cfg(target_os = "linux")]
    table: Vec<u8>,
}

const PT_LOAD: u32 = 1;
const PT_NOTE: u32 = 4;
const PT_GNU_RELRO: u32 = 0x6474_e552;
const PF_X: u32 = 1;
const PF_W: u32 = 2;

impl Elf {
    /// Reads the headers of a 64-bit file in this machine's byte order, which is the format of the running
    /// executable.
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
        let mut constants = Vec::new();
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
            if kind == PT_GNU_RELRO || kind == PT_LOAD && flags & (PF_W | PF_X) == 0 {
                constants.push(address..address + size);
            }
            if kind == PT_NOTE {
                notes.push((in_file, self::size(file_size)?, address));
            }
        }
        match (headers, code) {
            (Some(headers), Some(code)) => Ok(Self {
                headers,
                code,
                constants,
                notes,
                #[cfg(target_os = "linux")]
                table,
            }),
            _ => Err(invalid()),
        }
    }

    /// Returns whether this is the running program, by its program headers and its notes in memory.
    #[cfg(target_os = "linux")]
    fn is_running(&self, base: usize, file: &mut File) -> io::Result<bool> {
        // SAFETY: it has no conditions.
        let (count, size) = unsafe {
            (
                libc::getauxval(libc::AT_PHNUM),
                libc::getauxval(libc::AT_PHENT),
            )
        };
        let length = count
            .checked_mul(size)
            .and_then(|length| usize::try_from(length).ok());
        if length != Some(self.table.len()) {
            return Ok(false);
        }
        let in_memory = |address: usize, length| {
            let start = ptr::with_exposed_provenance::<u8>(address);
            // SAFETY: the system has mapped the program headers of the running program, and says how long
            // they are. The notes are read only if the headers, which say where the notes are, are the same.
            unsafe { slice::from_raw_parts(start, length) }
        };
        if self.table != in_memory(base, self.table.len()) {
            return Ok(false);
        }
        let bias = base.wrapping_sub(self.headers);
        for &(offset, length, address) in &self.notes {
            if read_at(file, offset, length)? != in_memory(address.wrapping_add(bias), length) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    /// Returns the identity of the build, which is the linker's, or else made of the file's properties; and
    /// the range of the code.
    fn identity(&self, file: &mut File) -> io::Result<Identity> {
        let mut hash = Hash::new();
        hash.add(env!("CARGO_PKG_VERSION").as_bytes());
        for number in [self.headers, self.code.start, self.code.end] {
            hash.add(&number.to_le_bytes());
        }
        let mut identified = false;
        for &(offset, length, _) in &self.notes {
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

/// Returns the GNU build identity among notes.
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

/// FNV-1a with 128 bits. Distinguishes builds, and is no defence against an adversary.
pub(super) struct Hash(u128);

impl Hash {
    pub(super) fn new() -> Self {
        Self(0x6c62_272e_07bb_0142_62b8_2175_6295_c58d)
    }

    pub(super) fn add(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u128::from(*byte)).wrapping_mul(0x0100_0000_0000_0000_0000_013b);
        }
    }

    pub(super) fn finish(self) -> Identity {
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
    #[cfg(target_os = "linux")]
    fn the_image_is_found_without_proc() {
        let path = started_with().unwrap();
        let found = Image::load(&path).unwrap();
        let known = image().unwrap();
        assert_eq!(found.identity(), known.identity());
        assert_eq!(found.code, known.code);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn another_executable_is_refused() {
        let error = Image::load(Path::new("/bin/sh")).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound, "{error}");
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
