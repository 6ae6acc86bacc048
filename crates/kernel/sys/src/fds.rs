//! Passing descriptors between processes (SCM_RIGHTS), and taking over those we were started with.

use std::{
    io::{self, IoSlice, IoSliceMut},
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd},
};

use nix::sys::socket::{ControlMessage, ControlMessageOwned, MsgFlags, recvmsg, sendmsg};

/// Sends `data` with `fds` over a UNIX socket; no SIGPIPE.
///
/// # Errors
/// EPIPE if the other end is closed.
pub fn send(socket: BorrowedFd<'_>, data: &[u8], fds: &[BorrowedFd<'_>]) -> io::Result<usize> {
    let raw: Vec<RawFd> = fds.iter().map(AsRawFd::as_raw_fd).collect();
    let rights = [ControlMessage::ScmRights(&raw)];
    let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
    loop {
        let parts = [IoSlice::new(data)];
        match sendmsg::<()>(socket.as_raw_fd(), &parts, control, MsgFlags::MSG_NOSIGNAL, None) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map_err(Into::into),
        }
    }
}

/// Receives data into `buffer`, and at most four descriptors. 0 bytes means the other end is closed.
///
/// # Errors
/// The kernel's; EMSGSIZE if the message was larger than the buffer, on sockets that keep messages apart.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    let mut control = nix::cmsg_space!([RawFd; 4]);
    loop {
        let mut parts = [IoSliceMut::new(buffer)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = match recvmsg::<()>(socket.as_raw_fd(), &mut parts, Some(&mut control), flags) {
            Err(nix::errno::Errno::EINTR) => continue,
            other => other?,
        };
        let mut fds = Vec::new();
        for part in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = part {
                // SAFETY: the kernel has just installed these descriptors for us; nobody else knows them.
                fds.extend(raw.into_iter().map(|fd| unsafe { OwnedFd::from_raw_fd(fd) }));
            }
        }
        if message.flags.contains(MsgFlags::MSG_TRUNC) {
            return Err(io::Error::from_raw_os_error(libc::EMSGSIZE));
        }
        return Ok((message.bytes, fds));
    }
}

/// Makes `fd` also be descriptor `number`, without close-on-exec (for 0, 1 and 2).
///
/// # Errors
/// The kernel's.
pub fn duplicate_to(fd: BorrowedFd<'_>, number: RawFd) -> io::Result<()> {
    // SAFETY: dup2 takes no pointers. What was `number` before is replaced; our callers only do so for the
    // standard descriptors, which nobody owns.
    crate::check(unsafe { libc::dup2(fd.as_raw_fd(), number) }.into()).map(drop)
}

/// Whether descriptor `number` is open.
#[must_use]
pub fn is_open(number: RawFd) -> bool {
    // SAFETY: F_GETFD doesn't touch memory.
    unsafe { libc::fcntl(number, libc::F_GETFD) >= 0 }
}
