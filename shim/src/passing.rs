//! One descriptor, from process to process through a socket.

use std::io::{IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;

use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};

/// The longest name of a terminal that comes with it, in bytes.
const NAME_BYTES: usize = 4096;

/// One message with it, and a name that says what it is.
///
/// # Errors
/// Nobody is there to take it.
pub(crate) fn send(
    stream: &UnixStream,
    descriptor: BorrowedFd<'_>,
    name: &str,
) -> Result<(), Errno> {
    let descriptors = [descriptor];
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !control.push(SendAncillaryMessage::ScmRights(&descriptors)) {
        return Err(Errno::NOBUFS);
    }
    let name = [IoSlice::new(name.as_bytes())];
    sendmsg(stream, &name, &mut control, SendFlags::NOSIGNAL)?;
    Ok(())
}

/// One message, without waiting: the descriptor that is in it. `None` at the end of the stream, and for
/// a message without.
///
/// # Errors
/// [`Errno::AGAIN`] where none has come.
pub(crate) fn receive(stream: &UnixStream) -> Result<Option<OwnedFd>, Errno> {
    let mut space = [MaybeUninit::<u8>::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut name = [0; NAME_BYTES];
    let flags = RecvFlags::CMSG_CLOEXEC | RecvFlags::DONTWAIT;
    recvmsg(
        stream,
        &mut [IoSliceMut::new(&mut name)],
        &mut control,
        flags,
    )?;
    let mut found = None;
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            found = descriptors.last().or(found);
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{self, Read, Write};
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn what_is_received_is_what_was_sent() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        assert_eq!(receive(&ours).expect_err("nothing yet"), Errno::AGAIN);
        let (read, mut write) = io::pipe().expect("pipe");
        send(&theirs, read.as_fd(), "a pipe").expect("sent");
        drop(read);
        let got = receive(&ours).expect("a message").expect("a descriptor");
        write.write_all(b"hello").expect("write");
        drop(write);
        let mut text = String::new();
        File::from(got).read_to_string(&mut text).expect("read");
        assert_eq!(text, "hello");
        (&theirs).write_all(b"none").expect("written");
        assert!(receive(&ours).expect("a message").is_none());
        drop(theirs);
        assert!(receive(&ours).expect("the end").is_none());
    }

    #[test]
    fn nobody_there_is_no_signal() {
        let (ours, theirs) = UnixStream::pair().expect("sockets");
        drop(theirs);
        let sent = send(&ours, ours.as_fd(), "itself");
        assert_eq!(sent, Err(Errno::PIPE));
    }
}
