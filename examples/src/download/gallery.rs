//! A server with pictures, of which some fail in a known way.

use crate::server::{Reply, Server};
use hyper::StatusCode;
use hyper::body::Bytes;
use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// The answer to a request for a picture.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// The picture.
    None,
    /// An error: there is no such picture.
    Missing,
    /// An error and the picture in turn, first the error.
    EveryOther,
    /// Half of the picture; then the connection breaks off.
    BreaksOff,
}

/// Number of pictures.
pub const COUNT: usize = 80;

/// Returns the fault of a picture.
#[must_use]
pub fn fault(number: usize) -> Fault {
    match number {
        7 | 31 | 64 => Fault::Missing,
        12 => Fault::EveryOther,
        23 => Fault::BreaksOff,
        _ => Fault::None,
    }
}

/// Returns the name of a picture.
#[must_use]
pub fn name(number: usize) -> String {
    format!("picture-{number:02}.bmp")
}

/// Starts a server that has pictures 0 to 79 and sends each after `latency`.
///
/// # Errors
/// If the system gives no port or no thread.
pub fn serve(latency: Duration) -> io::Result<Server> {
    let pictures: Vec<_> = (0..COUNT).map(|n| (path(n), picture(n))).collect();
    let failed = AtomicBool::new(false);
    Server::start(move |path| {
        let number = pictures.iter().position(|(known, _)| known == path);
        let reply = match number.map(|number| (fault(number), &pictures[number].1)) {
            None | Some((Fault::Missing, _)) => Reply::status(StatusCode::NOT_FOUND),
            Some((Fault::EveryOther, _)) if !failed.fetch_xor(true, Ordering::Relaxed) => {
                Reply::status(StatusCode::INTERNAL_SERVER_ERROR)
            }
            Some((Fault::BreaksOff, picture)) => reply(picture).broken_off(),
            Some((Fault::None | Fault::EveryOther, picture)) => reply(picture),
        };
        reply.after(latency)
    })
}

fn reply(picture: &Bytes) -> Reply {
    Reply::ok("image/bmp", picture.clone())
}

/// Returns the path of a picture on the server.
#[must_use]
pub fn path(number: usize) -> String {
    format!("/pictures/{}", name(number))
}

/// Returns the bytes of a picture: a BMP file, of a size and with a pattern of its own.
#[must_use]
pub fn picture(number: usize) -> Bytes {
    const HEADERS: usize = 14 + 40;
    let (width, height) = (64 + number, 48 + number);
    let row = (3 * width).next_multiple_of(4);
    let length = HEADERS + row * height;

    let mut bmp = Vec::with_capacity(length);
    let mut field = |size: usize, value: usize| bmp.extend(&value.to_le_bytes()[..size]);
    field(2, usize::from(b'B') | usize::from(b'M') << 8);
    field(4, length);
    field(4, 0); // reserved
    field(4, HEADERS);
    field(4, 40); // size of the second header
    field(4, width);
    field(4, height);
    field(2, 1); // planes
    field(2, 24); // bits a pixel
    for size in [4; 6] {
        field(size, 0); // not compressed, no resolution, no palette
    }
    for y in 0..height {
        for x in 0..row {
            field(1, (x * x + y * number) % 251);
        }
    }
    Bytes::from(bmp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_a_bmp_of_the_announced_length() {
        let picture = picture(3);
        assert_eq!(&picture[..2], b"BM");
        let field = |at: usize| u32::from_le_bytes(picture[at..at + 4].try_into().unwrap());
        assert_eq!(field(2) as usize, picture.len());
        assert_eq!((field(10), field(18), field(22)), (54, 67, 51));
        assert_eq!(picture.len(), 54 + 204 * 51);
    }

    #[test]
    fn pictures_differ_and_have_names_of_their_own() {
        assert_ne!(picture(1), picture(2));
        assert_eq!(name(7), "picture-07.bmp");
        assert_eq!((0..COUNT).filter(|n| fault(*n) != Fault::None).count(), 5);
    }
}
