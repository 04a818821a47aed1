//! The socket of a channel: the handshake, wake-ups, and the end of the other side.
//!
//! It carries packets, whose ends are kept. A packet of one byte is a wake-up; any
//! other is told apart by its first byte.

#![forbid(unsafe_code)]

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, SocketFlags, SocketType,
};
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

/// The longest packet.
const LONGEST: usize = 4096;

/// What came.
#[derive(Debug)]
pub(in crate::process) enum Packet {
    /// The other side is there no more.
    End,
    /// Nothing yet.
    Nothing,
    /// Look at the streams.
    WakeUp,
    /// A message, and a file that came with it.
    Message(Vec<u8>, Option<OwnedFd>),
}

/// One end of the socket.
#[derive(Debug)]
pub(in crate::process) struct Socket(OwnedFd);

impl Socket {
    /// Both ends.
    pub(in crate::process) fn pair() -> io::Result<(Self, Self)> {
        let (one, other) = rustix::net::socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )?;
        Ok((Self(one), Self(other)))
    }

    /// An end that was handed to this process, if `fd` is one.
    pub(in crate::process) fn from_fd(fd: OwnedFd) -> io::Result<Self> {
        match rustix::net::sockopt::socket_type(&fd)? {
            SocketType::SEQPACKET => Ok(Self(fd)),
            _ => Err(io::ErrorKind::InvalidInput.into()),
        }
    }

    pub(in crate::process) fn into_fd(self) -> OwnedFd {
        self.0
    }

    /// Wakes the other side.
    pub(in crate::process) fn wake(&self) -> io::Result<()> {
        let flags = SendFlags::DONTWAIT | SendFlags::NOSIGNAL;
        loop {
            return match rustix::net::send(&self.0, &[0], flags) {
                // Full of wake-ups.
                Ok(_) | Err(Errno::AGAIN) => Ok(()),
                Err(Errno::INTR) => continue,
                Err(error) => Err(error.into()),
            };
        }
    }

    /// Sends a message, with a file if one is given.
    pub(in crate::process) fn send(
        &self,
        message: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> io::Result<()> {
        debug_assert!((2..=LONGEST).contains(&message.len()));
        Ok(self.send_with(message, file, SendFlags::NOSIGNAL)?)
    }

    /// The same without waiting for room.
    pub(in crate::process) fn try_send(
        &self,
        message: &[u8],
        file: Option<BorrowedFd<'_>>,
    ) -> Result<(), Errno> {
        self.send_with(message, file, SendFlags::NOSIGNAL | SendFlags::DONTWAIT)
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
        loop {
            let message = &[IoSlice::new(message)];
            match rustix::net::sendmsg(&self.0, message, &mut ancillary, flags) {
                Err(Errno::INTR) => {}
                sent => return sent.map(drop),
            }
        }
    }

    /// Takes the next packet, waiting for it or not.
    pub(in crate::process) fn receive(&self, wait: bool) -> io::Result<Packet> {
        let mut bytes = vec![0; LONGEST];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut ancillary = RecvAncillaryBuffer::new(&mut space);
        let mut flags = RecvFlags::CMSG_CLOEXEC;
        if !wait {
            flags |= RecvFlags::DONTWAIT;
        }
        let mut was_reset = false;
        let received = loop {
            let buffers = &mut [IoSliceMut::new(&mut bytes)];
            match rustix::net::recvmsg(&self.0, buffers, &mut ancillary, flags) {
                Ok(received) => break received.bytes,
                Err(Errno::AGAIN) => return Ok(Packet::Nothing),
                Err(Errno::INTR) => {}
                // The other side has ended with a packet that it had not read. The system says so
                // before it gives us what that side has sent.
                Err(Errno::CONNRESET) if !was_reset => was_reset = true,
                Err(Errno::CONNRESET | Errno::PIPE) => return Ok(Packet::End),
                Err(error) => return Err(error.into()),
            }
        };
        let mut file = None;
        for message in ancillary.drain() {
            if let RecvAncillaryMessage::ScmRights(mut files) = message {
                file = files.next();
            }
        }
        bytes.truncate(received);
        Ok(match received {
            0 => Packet::End,
            1 => Packet::WakeUp,
            _ => Packet::Message(bytes, file),
        })
    }

    /// Waits for a wake-up, and takes all that have come. False when the other side is
    /// there no more.
    pub(in crate::process) fn sleep(&self) -> io::Result<bool> {
        let mut byte = [0_u8; 1];
        loop {
            match rustix::net::recv(&self.0, &mut byte, RecvFlags::empty()) {
                Ok((_, 0)) | Err(Errno::CONNRESET) => return Ok(false),
                Ok(_) => return Ok(true),
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(all(test, not(loom_models)))]
mod tests {
    use super::*;

    #[test]
    fn what_a_side_has_sent_arrives_even_if_it_has_not_read_what_was_sent_to_it() {
        let (one, other) = Socket::pair().unwrap();
        one.send(b"unread", None).unwrap();
        other.send(b"the reason", None).unwrap();
        drop(other);
        let Packet::Message(bytes, None) = one.receive(false).unwrap() else {
            panic!("no message");
        };
        assert_eq!(bytes, b"the reason");
        assert!(matches!(one.receive(false).unwrap(), Packet::End));
    }
}
