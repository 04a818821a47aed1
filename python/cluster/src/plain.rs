//! Pickles that are read without any code of Python.

/// The place of what comes after an operation.
enum Next {
    /// This many bytes behind it.
    Skip(usize),
    /// Behind a length of so many bytes, and a content of that length.
    Content(usize),
    End,
}

/// Returns whether a pickle has numbers, texts, bytes and containers of them only. To read it calls no function and names
/// no class. So no signal's handler can run meanwhile.
pub(crate) fn is_plain(pickle: &[u8]) -> bool {
    let mut rest = pickle;
    loop {
        let Some((operation, behind)) = rest.split_first() else {
            return false;
        };
        let next = match operation {
            // PROTO, BININT1, BINGET.
            0x80 | b'K' | b'h' => Next::Skip(1),
            // BININT2.
            b'M' => Next::Skip(2),
            // BININT, LONG_BINGET.
            b'J' | b'j' => Next::Skip(4),
            // FRAME, BINFLOAT.
            0x95 | b'G' => Next::Skip(8),
            // NONE, NEWTRUE, NEWFALSE, MEMOIZE; tuples, lists, dictionaries and sets, with their marks and items.
            b'N' | 0x88 | 0x89 | 0x94 | b')' | 0x85 | 0x86 | 0x87 | b't' | b'(' | b']' | b'a'
            | b'e' | b'}' | b's' | b'u' | 0x8f | 0x90 | 0x91 => Next::Skip(0),
            // LONG1, SHORT_BINUNICODE, SHORT_BINBYTES.
            0x8a | 0x8c | b'C' => Next::Content(1),
            // BINUNICODE, BINBYTES.
            b'X' | b'B' => Next::Content(4),
            b'.' => Next::End,
            _ => return false,
        };
        let skipped = match next {
            Next::Skip(length) => Some(length),
            Next::Content(size) => behind.get(..size).and_then(|bytes| {
                let mut length = [0; 8];
                length[..size].copy_from_slice(bytes);
                usize::try_from(u64::from_le_bytes(length))
                    .ok()?
                    .checked_add(size)
            }),
            Next::End => return behind.is_empty(),
        };
        match skipped.and_then(|length| behind.get(length..)) {
            Some(behind) => rest = behind,
            None => return false,
        }
    }
}
