//! `run`: create, start, and unless detached wait and delete.

use crate::{
    CreateOptions, Error, Outcome, Result, RunOptions, Runtime, Status,
    create::{Made, Mode},
    foreground::{Foreground, Subreaper},
    pid_file,
    query::Now,
    record::Home,
    spawn::sync::FromInit,
    start::poststart,
};

impl Runtime {
    /// Creates and starts a container, and unless detached waits for it, passing signals on, and deletes it.
    ///
    /// Who waits is the subreaper of the container's orphans meanwhile, and collects every child of the calling process
    /// that ends, unless [`RunOptions::no_subreaper`] says otherwise.
    ///
    /// # Errors
    /// Those of [`Self::create`] and [`Self::start`]; the system is then as before.
    #[inline(never)]
    pub fn run(&self, id: &str, create: &CreateOptions, run: &RunOptions) -> Result<Outcome> {
        let subreaper = Subreaper::begin(!run.detach && !run.no_subreaper)?;
        // Before we catch signals, through a descriptor: who has to wait for the config can still be interrupted.
        let bundle = self.bundle(id, create)?;
        // Before init is born, so that no signal is lost, nor its end.
        let foreground = if run.detach { None } else { Some(Foreground::begin(subreaper.is_some())?) };
        let mode = if run.detach { Mode::Detach } else { Mode::Run };
        let mut made = self.make(id, bundle, create, mode)?;
        let started = started(&mut made).and_then(|()| poststart(&made.record));
        if let Err(error) = started {
            return Err(self.give_up(id, create, &made, error));
        }
        let Some(foreground) = foreground else { return Ok(Outcome::Detached(made.child.pid)) };
        let code = foreground.wait(made.child.pid, &made.child.pidfd, made.terminal.take());
        if !run.keep {
            let Made { home, record, .. } = made;
            self.clear_up(&Now { home, record, filter: Vec::new(), status: Status::Stopped, init: None })?;
        }
        code.map(Outcome::Exited)
    }

    /// Takes back a container whose program didn't start.
    fn give_up(&self, id: &str, create: &CreateOptions, made: &Made, error: Error) -> Error {
        crate::spawn::parent::kill(made.child.pid, &made.child.pidfd).ok(); // because delete tells what is left
        let undone = match Home::new(&self.root, id) {
            Ok(_) => self.delete(id, true),
            Err(e) => Err(e),
        };
        let pid_file = create.pid_file.as_deref();
        match undone.and_then(|()| pid_file.map_or(Ok(()), |path| pid_file::remove(path, made.child.pid))) {
            Ok(()) => error,
            Err(left) => Error::Undo { error: Box::new(error), left: vec![left.to_string()] },
        }
    }
}

/// Waits until init has become the program: its end of the channel is closed by execve. If it has died instead,
/// it has said why, or been killed, which is a way for a container to end.
fn started(made: &mut Made) -> Result<()> {
    while let Some(message) = made.child.hear_or_end()? {
        if let FromInit::Terminal(master) = message {
            made.terminal = Some(master);
        }
    }
    Ok(())
}
