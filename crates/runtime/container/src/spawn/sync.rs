//! The channel between parent and init: one socket pair that keeps messages apart. See the table in [`super`].

use std::{
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
};

use corten_sys::fds;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

use crate::{
    Error, Result,
    error::{Doing, chain},
};

/// What init says to its parent.
#[derive(Debug)]
pub(crate) enum FromInit {
    /// The intermediate process has cloned init.
    Born { pid: i32, pidfd: OwnedFd },
    /// The rootfs is mounted in a namespace of others: from now on there's something to take back.
    Rooted,
    /// Everything is mounted; hooks in the runtime's namespaces may run.
    Mounted,
    /// The terminal's master.
    Terminal(OwnedFd),
    /// Something that isn't a failure, for the log.
    Warning(String),
    /// The seccomp listener is descriptor number so-and-so in init.
    Listener(i32),
    /// Nothing but execve is left.
    Ready,
    /// It failed; the last message.
    Failed(Error),
}

/// What the parent says to init.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FromParent {
    /// uid_map and gid_map are written, the cgroups joined.
    Mapped = 1,
    /// The hooks have run.
    Continue = 2,
    /// The state is saved: live.
    Go = 3,
    /// Whoever answers seccomp notifications has the listener.
    Delivered = 4,
}

/// One end.
#[derive(Debug)]
pub(crate) struct Channel(OwnedFd);

const BORN: u8 = 1;
const MOUNTED: u8 = 2;
const TERMINAL: u8 = 3;
const WARNING: u8 = 4;
const LISTENER: u8 = 5;
const READY: u8 = 6;
const FAILED: u8 = 7;
const NO_PROGRAM: u8 = 8;
const HOOK: u8 = 9;
const ROOTED: u8 = 10;
const EXECVE: u8 = 11;
/// The kinds that init runs.
const HOOKS: [&str; 2] = ["createContainer", "startContainer"];

/// Longer messages are cut.
const MAX: usize = 4 << 10;

/// Two connected ends.
pub(crate) fn pair() -> Result<(Channel, Channel)> {
    let (a, b) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
        .doing(|| "make a socket pair".to_owned())?;
    Ok((Channel(a), Channel(b)))
}

impl Channel {
    fn send(&self, tag: u8, text: &[u8], fd: Option<BorrowedFd<'_>>) -> io::Result<()> {
        let mut message = vec![tag];
        message.extend_from_slice(text.get(..MAX - 1).unwrap_or(text));
        fds::send(self.0.as_fd(), &message, fd.as_slice()).map(drop)
    }

    /// Init's side: tells the parent.
    pub(crate) fn tell(&self, message: &FromInit) -> Result<()> {
        let sent = match message {
            FromInit::Born { pid, pidfd } => self.send(BORN, &pid.to_ne_bytes(), Some(pidfd.as_fd())),
            FromInit::Rooted => self.send(ROOTED, &[], None),
            FromInit::Mounted => self.send(MOUNTED, &[], None),
            FromInit::Terminal(master) => self.send(TERMINAL, &[], Some(master.as_fd())),
            FromInit::Warning(text) => self.send(WARNING, text.as_bytes(), None),
            FromInit::Listener(fd) => self.write(&[&[LISTENER][..], &fd.to_ne_bytes()].concat()),
            FromInit::Ready => self.send(READY, &[], None),
            FromInit::Failed(error) => self.send_failure(error),
        };
        sent.doing(|| "tell the parent process".to_owned())
    }

    /// With write(2) and nothing else, for when other system calls may be filtered.
    fn write(&self, message: &[u8]) -> io::Result<()> {
        loop {
            match nix::unistd::write(&self.0, message) {
                Err(nix::errno::Errno::EINTR) => {}
                other => return other.map(drop).map_err(Into::into),
            }
        }
    }

    fn send_failure(&self, error: &Error) -> io::Result<()> {
        self.send_bytes(&encode_failure(error))
    }

    fn send_bytes(&self, bytes: &[u8]) -> io::Result<()> {
        fds::send(self.0.as_fd(), bytes.get(..MAX).unwrap_or(bytes), &[]).map(drop)
    }

    /// The parent's side: lets init go on.
    pub(crate) fn order(&self, message: FromParent) -> Result<()> {
        self.send(message as u8, &[], None).doing(|| "tell container init to go on".to_owned())
    }

    /// Init's side: waits for this message. If the parent has died there's nothing left to live for.
    pub(crate) fn await_order(&self, expected: FromParent) -> Result<()> {
        let mut buffer = [0; 8];
        let (n, _) = fds::receive(self.0.as_fd(), &mut buffer).doing(|| "hear from the parent".to_owned())?;
        match buffer.first() {
            Some(&tag) if n > 0 && tag == expected as u8 => Ok(()),
            _ => corten_sys::process::exit(1),
        }
    }

    /// The parent's side: init's next message; None if it has closed its end, by execve or by dying.
    pub(crate) fn hear(&self) -> Result<Option<FromInit>> {
        let mut buffer = [0; MAX];
        let (n, mut fds) = loop {
            match fds::receive(self.0.as_fd(), &mut buffer) {
                // It has ended with an unread message of ours. The kernel says so once, before what it has
                // said itself can be read.
                Err(e) if e.raw_os_error() == Some(nix::libc::ECONNRESET) => {}
                other => break other.doing(|| "hear from container init".to_owned())?,
            }
        };
        let Some((&tag, rest)) = buffer.get(..n).and_then(<[u8]>::split_first) else { return Ok(None) };
        let number = || rest.try_into().map_or(0, i32::from_ne_bytes);
        Ok(Some(match (tag, fds.pop()) {
            (BORN, Some(pidfd)) => FromInit::Born { pid: number(), pidfd },
            (ROOTED, _) => FromInit::Rooted,
            (MOUNTED, _) => FromInit::Mounted,
            (TERMINAL, Some(master)) => FromInit::Terminal(master),
            (WARNING, _) => FromInit::Warning(String::from_utf8_lossy(rest).into_owned()),
            (LISTENER, _) => FromInit::Listener(number()),
            (READY, _) => FromInit::Ready,
            _ => FromInit::Failed(decode_failure(buffer.get(..n).unwrap_or_default())),
        }))
    }
}

impl AsFd for Channel {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A failure as bytes: also what init writes into the exec fifo.
pub(crate) fn encode_failure(error: &Error) -> Vec<u8> {
    match error {
        Error::Program { program, reason } => {
            [&[NO_PROGRAM], program.as_bytes(), &[0], reason.as_bytes()].concat()
        }
        Error::Execve { program, reason } => {
            [&[EXECVE], program.as_bytes(), &[0], reason.as_bytes()].concat()
        }
        Error::Hook { kind, index, path, reason } if HOOKS.contains(kind) => {
            let texts = [kind.as_bytes(), index.to_string().as_bytes(), path.as_os_str().as_bytes()].join(&0);
            [&[HOOK], &texts[..], &[0], reason.as_bytes()].concat()
        }
        other => {
            let errno = other.errno().unwrap_or_default().to_ne_bytes();
            let text = match other {
                Error::Init { message, .. } => message.clone(),
                _ => chain(other),
            };
            [&[FAILED], &errno[..], text.as_bytes()].concat()
        }
    }
}

/// The way back of [`encode_failure`].
pub(crate) fn decode_failure(bytes: &[u8]) -> Error {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let unknown = || Error::Init { message: "sent an unknown message".to_owned(), errno: 0 };
    match bytes.split_first() {
        Some((tag @ (&NO_PROGRAM | &EXECVE), rest)) => {
            let mut parts = rest.splitn(2, |&b| b == 0);
            let mut next = || parts.next().map(text).unwrap_or_default();
            let (program, reason) = (next(), next());
            match *tag {
                EXECVE => Error::Execve { program, reason },
                _ => Error::Program { program, reason },
            }
        }
        Some((&HOOK, rest)) => {
            let mut parts = rest.splitn(4, |&b| b == 0).map(text);
            let mut next = || parts.next().unwrap_or_default();
            let (kind, index, path, reason) = (next(), next(), next(), next());
            match HOOKS.into_iter().find(|known| *known == kind) {
                Some(kind) => {
                    Error::Hook { kind, index: index.parse().unwrap_or_default(), path: path.into(), reason }
                }
                None => unknown(),
            }
        }
        Some((&FAILED, rest)) if rest.len() >= 4 => {
            let (errno, message) = rest.split_at(4);
            Error::Init { message: text(message), errno: errno.try_into().map_or(0, i32::from_ne_bytes) }
        }
        _ => unknown(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_crosses_with_its_chain_and_errno() {
        let (parent, init) = pair().expect("pair");
        let cause = io::Error::from_raw_os_error(nix::libc::ENOTDIR);
        let error = Error::Os { operation: "mount proc on /proc".to_owned(), source: cause };
        init.tell(&FromInit::Failed(error)).expect("tell");
        let Some(FromInit::Failed(error)) = parent.hear().expect("hear") else { panic!("not a failure") };
        assert_eq!(error.errno(), Some(nix::libc::ENOTDIR));
        assert_eq!(
            error.to_string(),
            "container init: cannot mount proc on /proc: Not a directory (os error 20)"
        );
    }

    #[test]
    fn a_missing_program_stays_one() {
        let error = Error::Program { program: "sh".to_owned(), reason: "not there".to_owned() };
        assert!(matches!(decode_failure(&encode_failure(&error)),
            Error::Program { program, reason } if program == "sh" && reason == "not there"));
    }

    #[test]
    fn a_failed_hook_stays_one() {
        let reason = "exited with status 3: no way".to_owned();
        let error = Error::Hook { kind: "startContainer", index: 2, path: "/bin/x y".into(), reason };
        let text = error.to_string();
        let error = decode_failure(&encode_failure(&error));
        assert!(matches!(error, Error::Hook { .. }), "{error:?}");
        assert_eq!(error.to_string(), text);
    }

    #[test]
    fn last_words_are_heard_though_an_order_was_not() {
        let (parent, init) = pair().expect("pair");
        init.tell(&FromInit::Warning("last words".to_owned())).expect("tell");
        parent.order(FromParent::Go).expect("order");
        drop(init);
        let heard = parent.hear().expect("hear");
        assert!(matches!(&heard, Some(FromInit::Warning(text)) if text == "last words"), "{heard:?}");
        assert!(parent.hear().expect("hear").is_none());
    }

    #[test]
    fn a_closed_end_is_none() {
        let (parent, init) = pair().expect("pair");
        drop(init);
        assert!(parent.hear().expect("hear").is_none());
    }
}
