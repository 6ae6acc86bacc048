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

/// Receives data into `buffer`, and the descriptors that come with it. 0 bytes means the other end is closed.
///
/// # Errors
/// The kernel's; EMSGSIZE if the message was larger than the buffer, on sockets that keep messages apart.
pub fn receive(socket: BorrowedFd<'_>, buffer: &mut [u8]) -> io::Result<(usize, Vec<OwnedFd>)> {
    // As many as the kernel lets anyone send (SCM_MAX_FD): with less room those that fit would be ours, and nix not say
    // which, so that nobody could close them.
    let mut control = nix::cmsg_space!([RawFd; 253]);
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
    if fd.as_raw_fd() == number {
        // dup2 would leave it as it is, to be closed on exec.
        return crate::exec::keep_on_exec(number);
    }
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

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::net::UnixStream};

    use super::*;

    #[test]
    fn no_descriptor_is_lost_however_many_come() {
        let (one, other) = UnixStream::pair().expect("pair");
        let (reader, writer) = nix::unistd::pipe().expect("pipe");
        send(one.as_fd(), b"x", &[writer.as_fd(); 200]).expect("send");
        drop(writer);
        let (n, fds) = receive(other.as_fd(), &mut [0; 8]).expect("receive");
        assert_eq!((n, fds.len()), (1, 200));
        drop(fds);
        // Only if none is left anywhere is this the end.
        assert_eq!(nix::unistd::read(&reader, &mut [0]).expect("read"), 0);
    }

    #[test]
    fn what_is_a_number_already_is_passed_on_too() {
        let file = std::fs::File::open("/dev/null").expect("open");
        let flags = || nix::fcntl::fcntl(file.as_fd(), nix::fcntl::FcntlArg::F_GETFD).expect("fcntl");
        assert_eq!(flags(), libc::FD_CLOEXEC);
        duplicate_to(file.as_fd(), file.as_raw_fd()).expect("duplicate");
        assert_eq!(flags(), 0);
    }
}
