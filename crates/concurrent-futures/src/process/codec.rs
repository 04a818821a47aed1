//! Values as bytes: by serde and postcard, except for values that are bytes already.

#![forbid(unsafe_code)]

use crate::executor::Value;
use std::any::Any;
use std::any::TypeId;
use std::borrow::Cow;
use std::time::Duration;

/// The length up to which values are copied, so that a buffer can be used again. Longer values are moved.
const COPIED: usize = 1024;

/// Appends a value to `bytes`, which is empty.
///
/// # Errors
/// The error of serde.
pub(crate) fn encode<T: Value>(value: T, bytes: &mut Vec<u8>) -> Result<(), String> {
    let mut value = Some(value);
    if let Some(own) = take_bytes(&mut value) {
        if own.len() <= COPIED {
            bytes.extend_from_slice(&own);
        } else {
            *bytes = own;
        }
        return Ok(());
    }
    match postcard::to_extend(&value.ok_or_else(String::new)?, std::mem::take(bytes)) {
        Ok(written) => {
            *bytes = written;
            Ok(())
        }
        Err(error) => Err(error.to_string()),
    }
}

/// Makes a value from bytes.
///
/// # Errors
/// The error of serde.
pub(crate) fn decode<T: Value>(bytes: Bytes<'_>) -> Result<T, String> {
    let mut value = None::<T>;
    match put_bytes(&mut value, bytes)? {
        None => value.ok_or_else(String::new),
        Some(bytes) => match postcard::take_from_bytes(bytes.as_slice()) {
            Ok((value, [])) => Ok(value),
            Ok((_, rest)) => Err(format!("{} bytes are left over", rest.len())),
            Err(error) => Err(error.to_string()),
        },
    }
}

/// Bytes that may be moved out.
#[derive(Debug)]
pub(crate) enum Bytes<'a> {
    Borrowed(&'a [u8]),
    Owned(Vec<u8>),
}

impl<'a> From<Cow<'a, [u8]>> for Bytes<'a> {
    fn from(bytes: Cow<'a, [u8]>) -> Self {
        match bytes {
            Cow::Borrowed(bytes) => Self::Borrowed(bytes),
            Cow::Owned(bytes) => Self::Owned(bytes),
        }
    }
}

impl<'a> Bytes<'a> {
    pub(crate) fn into_cow(self) -> Cow<'a, [u8]> {
        match self {
            Self::Borrowed(bytes) => Cow::Borrowed(bytes),
            Self::Owned(bytes) => Cow::Owned(bytes),
        }
    }

    pub(crate) fn as_slice(&self) -> &[u8] {
        match self {
            Self::Borrowed(bytes) => bytes,
            Self::Owned(bytes) => bytes,
        }
    }

    fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Borrowed(bytes) => bytes.to_vec(),
            Self::Owned(bytes) => bytes,
        }
    }
}

/// Takes the bytes out of a value that is bytes already.
fn take_bytes<T: 'static>(value: &mut Option<T>) -> Option<Vec<u8>> {
    let value: &mut dyn Any = value;
    if let Some(bytes) = value.downcast_mut::<Option<Vec<u8>>>() {
        return bytes.take();
    }
    if let Some(text) = value.downcast_mut::<Option<String>>() {
        return text.take().map(String::into_bytes);
    }
    if let Some(bytes) = value.downcast_mut::<Option<Box<[u8]>>>() {
        return bytes.take().map(<[u8]>::into_vec);
    }
    None
}

/// Makes a value that consists of bytes. Gives the bytes back if the type is another.
fn put_bytes<'a, T: 'static>(
    value: &mut Option<T>,
    bytes: Bytes<'a>,
) -> Result<Option<Bytes<'a>>, String> {
    let value: &mut dyn Any = value;
    if let Some(place) = value.downcast_mut::<Option<Vec<u8>>>() {
        *place = Some(bytes.into_vec());
    } else if let Some(place) = value.downcast_mut::<Option<String>>() {
        *place = Some(String::from_utf8(bytes.into_vec()).map_err(|error| error.to_string())?);
    } else if let Some(place) = value.downcast_mut::<Option<Box<[u8]>>>() {
        *place = Some(bytes.into_vec().into_boxed_slice());
    } else {
        return Ok(Some(bytes));
    }
    Ok(None)
}

/// Returns whether values of a type are made and dropped by code that is known to be short.
pub(crate) fn is_plain<T: 'static>() -> bool {
    let ours = TypeId::of::<T>();
    macro_rules! is_one_of {
        ($($plain:ty),* $(,)?) => {
            false $(
                || ours == TypeId::of::<$plain>()
                || ours == TypeId::of::<Option<$plain>>()
                || ours == TypeId::of::<Vec<$plain>>()
            )*
        };
    }
    is_one_of![
        (),
        bool,
        char,
        u8,
        u16,
        u32,
        u64,
        u128,
        usize,
        i8,
        i16,
        i32,
        i64,
        i128,
        isize,
        f32,
        f64,
        String,
        Vec<u8>,
        Duration,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;
    use std::fmt::Debug;

    fn round<T: Value + Clone + PartialEq + Debug>(value: &T) {
        let mut bytes = Vec::new();
        encode(value.clone(), &mut bytes).unwrap();
        assert_eq!(&decode::<T>(Bytes::Borrowed(&bytes)).unwrap(), value);
        assert_eq!(&decode::<T>(Bytes::Owned(bytes)).unwrap(), value);
    }

    proptest! {
        #[test]
        fn values_come_back(
            number: i64,
            text: String,
            bytes: Vec<u8>,
            map: BTreeMap<String, (u8, Option<char>)>,
        ) {
            round(&number);
            round(&bytes.clone().into_boxed_slice());
            round(&bytes);
            round(&map);
            round(&(text.clone(), bytes, map));
            round(&text);
        }

        #[test]
        fn any_bytes_are_a_value_or_an_error(bytes: Vec<u8>) {
            // None of these panics, or takes memory for what is not there.
            let _ = decode::<String>(Bytes::Borrowed(&bytes));
            let _ = decode::<Vec<String>>(Bytes::Borrowed(&bytes));
            let _ = decode::<BTreeMap<u64, Vec<u64>>>(Bytes::Owned(bytes));
        }
    }

    #[test]
    fn bytes_are_moved_not_copied() {
        let value = vec![7; 10 * COPIED];
        let place = value.as_ptr();
        let mut bytes = Vec::new();
        encode(value, &mut bytes).unwrap();
        assert_eq!(bytes.as_ptr(), place);
        let value: Vec<u8> = decode(Bytes::Owned(bytes)).unwrap();
        assert_eq!(value.as_ptr(), place);
    }

    #[test]
    fn trailing_bytes_are_an_error() {
        assert!(decode::<u8>(Bytes::Borrowed(&[1, 2])).is_err());
        assert!(decode::<()>(Bytes::Borrowed(&[0])).is_err());
    }

    #[test]
    fn only_types_of_the_standard_library_without_type_parameters_of_others_are_plain() {
        struct Own;
        assert!(is_plain::<u64>() && is_plain::<Vec<u8>>() && is_plain::<Option<String>>());
        assert!(!is_plain::<Own>() && !is_plain::<Vec<Own>>() && !is_plain::<Box<Own>>());
    }
}
