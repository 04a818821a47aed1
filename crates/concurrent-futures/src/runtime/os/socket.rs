//! The socket of a channel: the handshake, wake-ups, and the end of the other side.
//!
//! It carries packets, whose ends are kept. A packet of one byte is a wake-up; any other is told apart by its first
//! byte.
//!
//! | choice | is |
//! |---|---|
//! | first | a socket of packets (`SOCK_SEQPACKET`) |
//! | portable | a socket of bytes, with a byte before each packet. [`WAKE_UP`] is a packet by itself. Behind [`MESSAGE`] follow the length of the message, in two bytes, and the message |
//!
//! The end that a process receives says which it is. A message is written by one call, with its file. It may be read in
//! parts, which wait in the socket's [`Incoming`] for the rest. So no side waits in the middle of a message.

#![forbid(unsafe_code)]

use crate::runtime::os::backend;
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType, sockopt,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, PoisonError};

/// The longest packet.
const LONGEST: usize = 4096;

/// A packet that came through the socket, or its end.
#[derive(Debug)]
pub(crate) enum Packet {
    /// The other side has ended.
    End,
    /// No packet yet.
    Nothing,
    /// The other side asks to look at the streams.
    WakeUp,
    /// A message, and a file that came with it.
    Message(Vec<u8>, Option<OwnedFd>),
}

/// The byte of a wake-up.
const WAKE_UP: u8 = 0;
/// The byte before a message.
const MESSAGE: u8 = 1;
/// The bytes before a message: the kind and the length.
const PREFIX: usize = 3;

/// A message that has come in part.
#[derive(Debug, Default)]
struct Incoming {
    /// The bytes of the prefix and the message that have come.
    bytes: Vec<u8>,
    file: Option<OwnedFd>,
}

impl Incoming {
    /// Returns the number of bytes to read next, and no more: the file of a message comes with its first byte.
    fn missing(&self) -> usize {
        match self.bytes[..] {
            [] => 1,
            [_, low, high, ..] => {
                let length = usize::from(u16::from_le_bytes([low, high]));
                (PREFIX + length).saturating_sub(self.bytes.len())
            }
            [..] => PREFIX - self.bytes.len(),
        }
    }
}

/// One end of the socket.
#[derive(Debug)]
pub(crate) struct Socket {
    fd: OwnedFd,
    /// The unfinished message, if the socket carries bytes.
    incoming: Option<Mutex<Incoming>>,
}

impl Socket {
    /// Makes both ends.
    pub(crate) fn pair() -> io::Result<(Self, Self)> {
        #[cfg(target_os = "linux")]
        if !backend::is_portable() {
            use crate::runtime::os::fallback::{self, Job};
            match pair_of(SocketType::SEQPACKET) {
                Ok((one, other)) => return Ok((Self::of_packets(one), Self::of_packets(other))),
                // These are short for any socket.
                Err(error @ (Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS)) => {
                    return Err(error.into());
                }
                Err(error) => fallback::note(Job::Sockets, &error),
            }
        }
        let (one, other) = pair_of(SocketType::STREAM)?;
        Ok((Self::of_bytes(one), Self::of_bytes(other)))
    }

    fn of_packets(fd: OwnedFd) -> Self {
        Self { fd, incoming: None }
    }

    fn of_bytes(fd: OwnedFd) -> Self {
        let incoming = Some(Mutex::default());
        Self { fd, incoming }
    }

    /// Makes an end of a descriptor that was handed to this process, if it is a socket. A socket of bytes makes this
    /// process choose portable calls, as its maker has.
    pub(crate) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        match sockopt::socket_type(&fd)? {
            SocketType::SEQPACKET => Ok(Self::of_packets(fd)),
            SocketType::STREAM => {
                backend::adopt_portable();
                Ok(Self::of_bytes(fd))
            }
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    /// Returns whether the socket carries bytes.
    pub(crate) fn carries_bytes(&self) -> bool {
        self.incoming.is_some()
    }

    pub(crate) fn into_fd(self) -> OwnedFd {
        self.fd
    }

    /// Wakes the other side.
    pub(crate) fn wake(&self) -> io::Result<()> {
        loop {
            return match rustix::net::send(&self.fd, &[WAKE_UP], QUIET | SendFlags::DONTWAIT) {
                // Full of wake-ups.
                Ok(_) | Err(Errno::AGAIN) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends a message, with a file if one is given.
    pub(crate) fn send(&self, message: &[u8], file: Option<BorrowedFd<'_>>) -> io::Result<()> {
        debug_assert!((2..=LONGEST).contains(&message.len()));
        Ok(self.send_with(message, file, QUIET)?)
    }

    /// Sends a message without waiting for room.
    pub(crate) fn try_send(
        &self,
        message: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), Errno> {
        self.send_with(message, file, QUIET | SendFlags::DONTWAIT)
    }

    fn send_with(
        &self,
        message: &[u8],
        file: Option<BorrowedFd<'_>>,
        flags: SendFlags,
    ) -> Result<(), Errno> {
        let files: Vec<_> = file.into_iter().collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = SendAncillaryBuffer::new(&mut space);
        if !files.is_empty() {
            ancillary.push(SendAncillaryMessage::ScmRights(&files));
        }
        let prefix = match (&self.incoming, u16::try_from(message.len())) {
            (None, _) => Vec::new(),
            (Some(_), Ok(length)) => [&[MESSAGE][..], &length.to_le_bytes()].concat(),
            (Some(_), Err(_)) => return Err(Errno::MSGSIZE),
        };
        let sent = loop {
            let parts = [IoSlice::new(&prefix), IoSlice::new(message)];
            let parts = if prefix.is_empty() {
                &parts[1..]
            } else {
                &parts[..]
            };
            match rustix::net::sendmsg(&self.fd, parts, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                sent => break sent?,
            }
        };
        // Systems other than Linux may take a part: the other side expects the rest.
        let whole = [&prefix[..], message].concat();
        let mut rest = whole.get(sent..).unwrap_or_default();
        while !rest.is_empty() && self.incoming.is_some() {
            match rustix::net::send(&self.fd, rest, QUIET) {
                Ok(sent) => rest = &rest[sent..],
                Err(Errno::INTR) => {}
                // The descriptor may be one of those that never wait.
                Err(Errno::AGAIN) => std::thread::yield_now(),
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Takes the next packet, waiting for it or not.
    pub(crate) fn receive(&self, wait: bool) -> io::Result<Packet> {
        let Some(incoming) = &self.incoming else {
            let mut bytes = vec![0; LONGEST];
            let Some((received, file)) = self.receive_bytes(&mut bytes, wait)? else {
                return Ok(Packet::Nothing);
            };
            bytes.truncate(received);
            return Ok(match received {
                0 => Packet::End,
                1 => Packet::WakeUp,
                _ => Packet::Message(bytes, file),
            });
        };
        let mut incoming = incoming.lock().unwrap_or_else(PoisonError::into_inner);
        loop {
            let mut bytes = vec![0; incoming.missing()];
            let Some((received, file)) = self.receive_bytes(&mut bytes, wait)? else {
                return Ok(Packet::Nothing);
            };
            if received == 0 {
                return Ok(Packet::End);
            }
            incoming.bytes.extend_from_slice(&bytes[..received]);
            incoming.file = incoming.file.take().or(file);
            match incoming.bytes[0] {
                WAKE_UP => {
                    incoming.bytes.clear();
                    return Ok(Packet::WakeUp);
                }
                MESSAGE if incoming.bytes.len() >= PREFIX && incoming.missing() == 0 => {
                    let Incoming { mut bytes, file } = std::mem::take(&mut *incoming);
                    bytes.drain(..PREFIX);
                    return Ok(Packet::Message(bytes, file));
                }
                MESSAGE => {}
                _ => return Err(io::ErrorKind::InvalidData.into()),
            }
        }
    }

    /// Reads bytes, and a file that came with them. Returns none if there are none yet, and no bytes at the end.
    fn receive_bytes(
        &self,
        bytes: &mut [u8],
        wait: bool,
    ) -> io::Result<Option<(usize, Option<OwnedFd>)>> {
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut flags = PRIVATE_FILES;
        if !wait {
            flags |= RecvFlags::DONTWAIT;
        }
        let mut was_reset = false;
        let received = loop {
            let buffers = &mut [IoSliceMut::new(bytes)];
            match rustix::net::recvmsg(&self.fd, buffers, &mut ancillary, flags) {
                Ok(received) => break received.bytes,
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => {}
                // The other side has ended with a packet that it had not read. The system says so
                // before it gives us what that side has sent.
                Err(Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Some((0, None))),
                Err(error) => return Err(error.into()),
            }
        };
        let mut file = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message {
                file = files.next();
            }
        }
        #[cfg(target_vendor = "apple")]
        if let Some(file) = &file {
            crate::runtime::os::descriptors::keep_private(file)?;
        }
        Ok(Some((received, file)))
    }

    /// Waits for a wake-up, and takes those that have come. Returns false if the other side has ended.
    pub(crate) fn sleep(&self) -> io::Result<bool> {
        // While this side sleeps, nothing but wake-ups comes.
        let mut bytes = [0_u8; 64];
        let most = if self.carries_bytes() { bytes.len() } else { 1 };
        loop {
            match rustix::net::recv(&self.fd, &mut bytes[..most], RecvFlags::empty()) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

/// The flag by which a closed socket sends no signal.
#[cfg(not(target_vendor = "apple"))]
const QUIET: SendFlags = SendFlags::NOSIGNAL;
/// No flag: the socket has the property.
#[cfg(target_vendor = "apple")]
const QUIET: SendFlags = SendFlags::empty();

/// The flag by which no program inherits files that are received.
#[cfg(not(target_vendor = "apple"))]
const PRIVATE_FILES: RecvFlags = RecvFlags::CMSG_CLOEXEC;
#[cfg(target_vendor = "apple")]
const PRIVATE_FILES: RecvFlags = RecvFlags::empty();

/// Makes both ends of a socket.
fn pair_of(kind: SocketType) -> Result<(OwnedFd, OwnedFd), Errno> {
    #[cfg(not(target_vendor = "apple"))]
    return rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None);
    #[cfg(target_vendor = "apple")]
    {
        let (one, other) =
            rustix::net::socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None)?;
        for end in [&one, &other] {
            rustix::io::fcntl_setfd(end, rustix::io::FdFlags::CLOEXEC)?;
            sockopt::set_socket_nosigpipe(end, true)?;
        }
        Ok((one, other))
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    fn both() -> [(Socket, Socket); 2] {
        let (one, other) = pair_of(SocketType::STREAM).unwrap();
        let bytes = (Socket::of_bytes(one), Socket::of_bytes(other));
        [Socket::pair().unwrap(), bytes]
    }

    fn message(socket: &Socket) -> (Vec<u8>, Option<OwnedFd>) {
        match socket.receive(false).unwrap() {
            Packet::Message(bytes, file) => (bytes, file),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn packets_arrive_from_a_side_that_has_unread_packets() {
        for (one, other) in both() {
            one.send(b"unread", None).unwrap();
            other.send(b"the reason", None).unwrap();
            drop(other);
            assert_eq!(message(&one).0, b"the reason");
            assert!(matches!(one.receive(false).unwrap(), Packet::End));
        }
    }

    #[test]
    fn packets_keep_their_ends_and_their_files() {
        for (one, other) in both() {
            let long = vec![7; LONGEST];
            one.wake().unwrap();
            one.send(b"first", Some(one.as_fd())).unwrap();
            one.send(&long, None).unwrap();
            one.send(b"third", Some(one.as_fd())).unwrap();
            one.wake().unwrap();
            assert!(matches!(other.receive(false).unwrap(), Packet::WakeUp));
            let (bytes, file) = message(&other);
            assert!(bytes == b"first" && file.is_some());
            let (bytes, file) = message(&other);
            assert!(bytes == long && file.is_none());
            let (bytes, file) = message(&other);
            assert!(bytes == b"third" && file.is_some());
            assert!(other.sleep().unwrap());
            assert!(matches!(other.receive(false).unwrap(), Packet::Nothing));
        }
    }

    #[test]
    fn a_message_that_has_come_in_part_is_not_waited_for() {
        let [_, (one, other)] = both();
        for part in [&[MESSAGE][..], &[5, 0], b"par", b"ts"] {
            assert!(matches!(other.receive(false).unwrap(), Packet::Nothing));
            rustix::net::send(&one.fd, part, QUIET).unwrap();
        }
        assert_eq!(message(&other).0, b"parts");
        rustix::net::send(&one.fd, &[MESSAGE, 5], QUIET).unwrap();
        drop(one);
        assert!(matches!(other.receive(false).unwrap(), Packet::End));
    }

    #[test]
    fn bytes_against_the_protocol_are_an_error() {
        let [_, (one, other)] = both();
        rustix::net::send(&one.fd, &[9], QUIET).unwrap();
        assert!(other.receive(false).is_err());
    }
}
