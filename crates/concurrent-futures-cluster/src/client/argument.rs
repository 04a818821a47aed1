//! The argument of a task that waits, in little memory.

#![forbid(unsafe_code)]

use bytes::Bytes;

/// The longest argument without an allocation of its own.
const SHORT: usize = 22;
/// The longest argument that may be copied, so that it takes no more memory than its bytes.
const COPIED: usize = 1024;

/// The bytes of an argument.
pub(crate) enum Argument {
    /// The length, and the bytes with others behind them.
    Short(u8, [u8; SHORT]),
    Copied(Box<[u8]>),
    /// The bytes, whose memory others may share.
    Long(Box<Bytes>),
}

impl Argument {
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Short(length, _) => usize::from(*length),
            Self::Copied(bytes) => bytes.len(),
            Self::Long(bytes) => bytes.len(),
        }
    }

    fn short(bytes: &[u8]) -> Option<Self> {
        let mut short = [0; SHORT];
        short.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(Self::Short(u8::try_from(bytes.len()).ok()?, short))
    }
}

impl From<Vec<u8>> for Argument {
    fn from(bytes: Vec<u8>) -> Self {
        if let Some(short) = Self::short(&bytes) {
            short
        } else if bytes.len() <= COPIED {
            Self::Copied(bytes.into())
        } else {
            Self::Long(Box::new(bytes.into()))
        }
    }
}

impl From<Bytes> for Argument {
    fn from(bytes: Bytes) -> Self {
        if let Some(short) = Self::short(&bytes) {
            short
        } else if bytes.len() <= COPIED {
            Self::Copied(bytes[..].into())
        } else {
            Self::Long(Box::new(bytes))
        }
    }
}

impl From<Argument> for Bytes {
    fn from(argument: Argument) -> Self {
        match argument {
            Argument::Short(length, short) => {
                Self::copy_from_slice(&short[..SHORT.min(length.into())])
            }
            Argument::Copied(bytes) => bytes.into(),
            Argument::Long(bytes) => *bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_argument_of_any_length_comes_back() {
        for length in [0, 1, SHORT, SHORT + 1, COPIED, COPIED + 1, 300_000] {
            let bytes: Vec<u8> = (0..=u8::MAX).cycle().take(length).collect();
            for argument in [
                Argument::from(bytes.clone()),
                Argument::from(Bytes::from(bytes.clone())),
            ] {
                assert_eq!(argument.len(), length);
                assert_eq!(Bytes::from(argument), bytes);
            }
        }
        assert_eq!(size_of::<Argument>(), 24);
    }

    #[test]
    fn a_long_argument_is_not_copied() {
        let bytes = Bytes::from(vec![7; COPIED + 1]);
        let place = bytes.as_ptr();
        let argument = Bytes::from(Argument::from(bytes));
        assert_eq!(argument.as_ptr(), place);
    }
}
