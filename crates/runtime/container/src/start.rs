//! `start` (runtime-spec, "Lifecycle", steps 6 to 8).

use std::{
    fs,
    io::{self, Read},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
};

use nix::{
    libc,
    poll::{PollFd, PollFlags, PollTimeout, poll},
};

use crate::{
    Error, Result, Runtime, Status,
    error::{Doing, chain},
    failpoint::Failpoint,
    hooks::{self, Output, Surroundings},
    record::{CREATING, FIFO, Home, Record},
    spawn::sync::decode_failure,
};

impl Runtime {
    /// Starts the program of a created container; returns once it runs and poststart hooks are done.
    ///
    /// # Errors
    /// [`Error::Status`] unless created; [`Error::Program`] or [`Error::Init`] if the program can't be executed;
    /// [`Error::Hook`] if a hook failed: then the container is deleted.
    #[inline(never)]
    pub fn start(&self, id: &str) -> Result<()> {
        let home = Home::new(&self.root, id)?;
        let record = home.load()?;
        // A frozen init would never get to the program, and we never from here.
        if record.cgroup.is_frozen().unwrap_or(false) {
            return Err(Error::Status { id: id.to_owned(), status: Status::Paused, operation: "start" });
        }
        Failpoint::StartLoaded.pass()?;
        match start(&home, &record) {
            // runtime-spec, steps 7 and 9: stop the container, and go on at step 12, its destruction.
            Err(error @ Error::Hook { .. }) => match self.delete(id, true) {
                Ok(()) => Err(error),
                Err(left) => Err(Error::Undo { error: Box::new(error), left: vec![chain(&left)] }),
            },
            other => other,
        }
    }
}

/// Lets init go, and runs the hooks that come after the program has started.
fn start(home: &Home, record: &Record) -> Result<()> {
    release(home, record)?;
    Failpoint::StartRuns.pass()?;
    tracing::debug!("container {}: the program runs", record.id);
    poststart(record)?;
    Failpoint::StartHooks.pass()
}

/// Runs the hooks that come after the program has started.
pub(crate) fn poststart(record: &Record) -> Result<()> {
    let state = record.state(Status::Running);
    if record.poststart.is_empty() {
        return Ok(());
    }
    let output = Output::open(&record.trusted)?;
    hooks::run("poststart", Some(&record.poststart), &state, &record.bundle, &Surroundings::Ours, &output)
}

/// Lets init go, and waits until it has become the program, or failed.
///
/// The fifo works the other way round than runc's: init holds it open for both, and reads. Opening it for writing
/// fails at once (ENXIO) if init is dead, and when execve has closed init's end, a writer sees POLLERR.
fn release(home: &Home, record: &Record) -> Result<()> {
    let path = home.file(FIFO);
    let wrong = |status| Error::Status { id: home.id.clone(), status, operation: "start" };
    let doing = || format!("open the exec fifo {}", path.display());
    let open = |write: bool| {
        fs::OpenOptions::new().write(write).read(!write).custom_flags(libc::O_NONBLOCK).open(&path)
    };
    let mut fifo = match open(true) {
        // Nobody reads it: init has ended, or it runs already, and the `start` that let it go was killed.
        Err(e) if e.raw_os_error() == Some(libc::ENXIO) => return Err(wrong(status_now(home, record))),
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(wrong(status_now(home, record))),
        other => other.doing(doing)?,
    };
    // For the error, while the path exists; a reader of ours would keep POLLERR away, so it's opened by number later.
    let again = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(&fifo));
    Failpoint::StartOpened.pass()?;
    match io::Write::write_all(&mut fifo, b"0") {
        // Another start was faster, or init has ended.
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => return Err(wrong(status_now(home, record))),
        other => other.doing(|| "let container init go".to_owned())?,
    }
    Failpoint::StartReleased.pass()?;
    match fs::remove_file(&path) {
        // Another start was faster: this one has no part in it.
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(wrong(Status::Running)),
        other => other.doing(|| format!("remove the exec fifo {}", path.display()))?,
    }
    Failpoint::StartRemoved.pass()?;
    wait_for_error(&fifo).doing(|| "wait for the program to start".to_owned())?;
    let mut said = Vec::new();
    let reader = fs::OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(again);
    match reader.and_then(|mut reader| reader.read_to_end(&mut said)) {
        Err(e) if e.kind() != io::ErrorKind::WouldBlock => return Err(e).doing(doing),
        _ => {}
    }
    outcome(&said)
}

/// What is left in the fifo: orders to go that init didn't read, ours if it died, or those of other `start`s at the same
/// time; then its error, if it had one (which begins otherwise: [`decode_failure`]).
fn outcome(said: &[u8]) -> Result<()> {
    let orders = said.iter().take_while(|&&byte| byte == b'0').count();
    match said.get(orders..).unwrap_or_default() {
        [] => Ok(()),
        failure => Err(decode_failure(failure)),
    }
}

/// Waits until nobody has the fifo open for reading.
fn wait_for_error(fifo: &fs::File) -> io::Result<()> {
    loop {
        let mut fds = [PollFd::new(fifo.as_fd(), PollFlags::empty())];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) => return Ok(()),
            Err(nix::errno::Errno::EINTR) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn status_now(home: &Home, record: &Record) -> Status {
    match record.init.open() {
        Some(_) if home.file(CREATING).symlink_metadata().is_ok() => Status::Creating,
        Some(_) => Status::Running,
        None => Status::Stopped,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spawn::sync::encode_failure;

    #[test]
    fn orders_that_nobody_read_are_no_failure() {
        for orders in ["", "0", "00"] {
            outcome(orders.as_bytes()).expect(orders);
            let error = Error::Program { program: "0".to_owned(), reason: "no such file".to_owned() };
            let said = [orders.as_bytes(), &encode_failure(&error)].concat();
            assert_eq!(outcome(&said).expect_err(orders).to_string(), error.to_string());
        }
    }
}
