//! The runtime's commands.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;
use serde::Deserialize;

use crate::criu::{Checkpoint, Restore};
use crate::error::{Error, classify};
use crate::reaper::{Reaper, Watch};
use crate::scratch::Scratch;

/// An OCI runtime and how to call it.
#[derive(Clone, Debug)]
pub struct Runtime {
    /// The binary: a path or a name in `$PATH`.
    pub binary: PathBuf,
    /// Its `--root`; its own default when None.
    pub root: Option<PathBuf>,
    /// Whether it shall make cgroups through systemd.
    pub systemd_cgroup: bool,
    /// Whether create shall get `--no-pivot`.
    pub no_pivot: bool,
    /// Whether create shall get `--no-new-keyring`.
    pub no_new_keyring: bool,
    /// How long its commands may take.
    pub patience: Patience,
    /// Waits for what is started.
    pub reaper: Reaper,
}

/// How long commands may take before they are killed. Those that run a container's own programs or move its memory
/// (create, start, exec, checkpoint, restore) have no limit here: their callers know better.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Patience {
    /// Delete waits for processes to die and runs hooks.
    pub delete: Duration,
    /// Kill, pause, resume, update, state and ps.
    pub other: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self { delete: Duration::from_secs(120), other: Duration::from_secs(60) }
    }
}

impl Patience {
    fn with(self, verb: &str) -> Option<Duration> {
        match verb {
            "delete" => Some(self.delete),
            "kill" | "pause" | "resume" | "update" | "state" | "ps" => Some(self.other),
            _ => None,
        }
    }
}

/// A process's standard streams, or its terminal.
#[derive(Debug)]
pub enum Io {
    /// stdin, stdout, stderr
    Streams(Stdio, Stdio, Stdio),
    /// The runtime makes a terminal and sends its master to this socket.
    Console(PathBuf),
}

/// A process that a runtime has started for us.
#[derive(Debug)]
pub struct Started {
    /// Its PID.
    pub pid: u32,
    /// Its end.
    pub exit: Watch,
    /// Means it even when its PID has come round again; None when it has ended already.
    pub pidfd: Option<OwnedFd>,
}

/// The runtime-spec's state.
#[derive(Clone, Debug, Deserialize)]
pub struct State {
    /// The container.
    pub id: String,
    /// creating, created, running, stopped, paused
    pub status: String,
    /// 0 or missing when it is stopped.
    #[serde(default)]
    pub pid: u32,
}

/// A runtime that is at work.
#[derive(Debug)]
pub struct Launch {
    /// The runtime's own PID.
    pub runtime_pid: u32,
    binary: String,
    verb: &'static str,
    id: String,
    patience: Option<Duration>,
    exit: Watch,
    log: Scratch,
}

impl Launch {
    /// Waits for the runtime to end; kills it when that takes too long.
    async fn done(mut self) -> Result<(), Error> {
        let exited = match self.patience {
            None => self.exit.await,
            Some(patience) => match tokio::time::timeout(patience, &mut self.exit).await {
                Ok(exited) => exited,
                Err(_) => {
                    // Its end hasn't been seen, so it is unreaped, and the PID its own.
                    let _ = kill(Pid::from_raw(self.runtime_pid.cast_signed()), Signal::SIGKILL);
                    let Self { binary, verb, id, .. } = self;
                    return Err(Error::TookTooLong { binary, verb, id, patience });
                }
            },
        };
        if exited.status == 0 {
            return Ok(());
        }
        let message = self.log.read().ok().and_then(|log| last_error(&log));
        let message =
            message.unwrap_or_else(|| format!("ended with status {} and logged no error", exited.status));
        let kind = classify(&message);
        Err(Error::Failed { binary: self.binary, verb: self.verb, id: self.id, kind, message })
    }
}

impl Runtime {
    /// Creates a container; its init waits for [`Runtime::start`]. The PID file stays in the bundle as `init.pid`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn create(&self, id: &str, bundle: &Path, io: Io) -> Result<Started, Error> {
        let pid_file = bundle.join("init.pid");
        let mut arguments: Vec<OsString> = vec!["--bundle".into(), bundle.into()];
        arguments.extend(["--pid-file".into(), pid_file.clone().into()]);
        if self.no_pivot {
            arguments.push("--no-pivot".into());
        }
        if self.no_new_keyring {
            arguments.push("--no-new-keyring".into());
        }
        let _hold = self.reaper.hold();
        self.launch("create", id, arguments, io)?.done().await?;
        self.started("create", id, &pid_file)
    }

    /// Lets a created container run its program.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        self.simple("start", id, Vec::new()).await
    }

    /// Begins to run another process in a container. `pid_file` is the name of a file that doesn't exist.
    /// Finish with [`Runtime::exec_started`].
    ///
    /// # Errors
    /// [`Error`]
    pub fn exec(&self, id: &str, process_json: &[u8], pid_file: &Path, io: Io) -> Result<Launch, Error> {
        self.exec_in(id, process_json, pid_file, io, None)
    }

    /// As [`Runtime::exec`], in a cgroup below the container's: `--cgroup` of the runtimes that have it.
    ///
    /// # Errors
    /// [`Error`]
    pub fn exec_in(
        &self,
        id: &str,
        process_json: &[u8],
        pid_file: &Path,
        io: Io,
        cgroup: Option<String>,
    ) -> Result<Launch, Error> {
        let process = Scratch::new(c"process.json", process_json)
            .map_err(|source| self.prepare("exec", id, "put the process into memory", source))?;
        let mut arguments = vec![
            "--detach".into(),
            "--process".into(),
            process.path().into(),
            "--pid-file".into(),
            pid_file.into(),
        ];
        arguments.extend(cgroup.into_iter().flat_map(|cgroup| ["--cgroup".into(), cgroup.into()]));
        self.launch("exec", id, arguments, io)
    }

    /// Waits until the process of [`Runtime::exec`] runs (or the runtime has failed). `hold` must be from before that.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn exec_started(&self, launch: Launch, pid_file: &Path) -> Result<Started, Error> {
        let id = launch.id.clone();
        let done = launch.done().await;
        let started = match done {
            Ok(()) => self.started("exec", &id, pid_file),
            Err(error) => {
                kill_left(pid_file);
                Err(error)
            }
        };
        let _ = std::fs::remove_file(pid_file); // volatile, in the bundle: goes with it
        started
    }

    /// Sends a signal to a container's init, or to all of its processes.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn kill(&self, id: &str, signal: u32, all: bool) -> Result<(), Error> {
        let mut command = self.command();
        command.arg("kill");
        if all {
            command.arg("--all");
        }
        command.arg("--").arg(id).arg(signal.to_string());
        self.run("kill", id, command, null()).map(Launch::done)?.await
    }

    /// Deletes a container; with `force` kills it first, and it's no error when there is none.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn delete(&self, id: &str, force: bool) -> Result<(), Error> {
        self.simple("delete", id, if force { vec!["--force".into()] } else { Vec::new() }).await
    }

    /// Freezes a container.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn pause(&self, id: &str) -> Result<(), Error> {
        self.simple("pause", id, Vec::new()).await
    }

    /// Thaws a container.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn resume(&self, id: &str) -> Result<(), Error> {
        self.simple("resume", id, Vec::new()).await
    }

    /// Changes limits: `resources_json` is the runtime-spec's `linux.resources`.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn update(&self, id: &str, resources_json: &[u8]) -> Result<(), Error> {
        let resources = Scratch::new(c"resources.json", resources_json)
            .map_err(|source| self.prepare("update", id, "put the resources into memory", source))?;
        let arguments = vec!["--resources".into(), resources.path().into()];
        let launch = self.launch("update", id, arguments, null())?;
        drop(resources); // the runtime has its own
        launch.done().await
    }

    /// What the runtime knows of a container.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn state(&self, id: &str) -> Result<State, Error> {
        let result = |source| Error::Result { verb: "state", id: id.to_owned(), what: "the state", source };
        let text = self.output("state", id, Vec::new()).await?;
        serde_json::from_str(&text).map_err(|e| result(e.into()))
    }

    /// Writes what a container is to disk, through criu. It runs on unless `checkpoint.exit`.
    ///
    /// # Errors
    /// [`Error`]; criu's own log is in `checkpoint.work_path` then.
    pub async fn checkpoint(&self, id: &str, checkpoint: &Checkpoint) -> Result<(), Error> {
        self.simple("checkpoint", id, checkpoint.arguments()).await
    }

    /// Makes a container that runs from what [`Runtime::checkpoint`] has written.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn restore(
        &self,
        id: &str,
        bundle: &Path,
        restore: &Restore,
        io: Io,
    ) -> Result<Started, Error> {
        let pid_file = bundle.join("init.pid");
        let mut arguments: Vec<OsString> = vec!["--detach".into(), "--no-subreaper".into()];
        let paths = [
            ("--image-path", restore.image_path.as_path()),
            ("--work-path", &restore.work_path),
            ("--bundle", bundle),
            ("--pid-file", &pid_file),
        ];
        arguments.extend(paths.into_iter().flat_map(|(flag, path)| [OsString::from(flag), path.into()]));
        if self.no_pivot {
            arguments.push("--no-pivot".into());
        }
        let _hold = self.reaper.hold();
        self.launch("restore", id, arguments, io)?.done().await?;
        self.started("restore", id, &pid_file)
    }

    /// What the runtime knows of a container's processes: PIDs, as this process numbers them.
    ///
    /// # Errors
    /// [`Error`]
    pub async fn ps(&self, id: &str) -> Result<Vec<u32>, Error> {
        let result = |source| Error::Result { verb: "ps", id: id.to_owned(), what: "the PIDs", source };
        let text = self.output("ps", id, vec!["--format".into(), "json".into()]).await?;
        // null when there are none.
        let pids: Option<Vec<u32>> = serde_json::from_str(&text).map_err(|e| result(e.into()))?;
        Ok(pids.unwrap_or_default())
    }

    /// Runs a command and returns what it prints.
    async fn output(&self, verb: &'static str, id: &str, arguments: Vec<OsString>) -> Result<String, Error> {
        let result = |source| Error::Result { verb, id: id.to_owned(), what: "what it prints", source };
        let out = Scratch::new(c"stdout", b"").map_err(result)?;
        let to = std::fs::OpenOptions::new().write(true).open(out.path()).map_err(result)?;
        out.seal().map_err(result)?;
        let io = Io::Streams(Stdio::null(), to.into(), Stdio::null());
        self.launch(verb, id, arguments, io)?.done().await?;
        out.read().map_err(result)
    }

    async fn simple(&self, verb: &'static str, id: &str, arguments: Vec<OsString>) -> Result<(), Error> {
        self.launch(verb, id, arguments, null())?.done().await
    }

    fn launch(
        &self,
        verb: &'static str,
        id: &str,
        arguments: Vec<OsString>,
        io: Io,
    ) -> Result<Launch, Error> {
        let mut command = self.command();
        command.arg(verb).args(arguments);
        let io = match io {
            Io::Console(socket) => {
                command.arg("--console-socket").arg(socket);
                null()
            }
            streams @ Io::Streams(..) => streams,
        };
        command.arg("--").arg(id);
        self.run(verb, id, command, io)
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        if let Some(root) = &self.root {
            command.arg("--root").arg(root);
        }
        if self.systemd_cgroup {
            command.arg("--systemd-cgroup");
        }
        command
    }

    /// Global options may come before the verb only: `command` has been built with the verb, so the log's go
    /// through a rebuilt one.
    fn run(&self, verb: &'static str, id: &str, command: Command, io: Io) -> Result<Launch, Error> {
        let binary = self.binary.display().to_string();
        let prepare = |what, source| self.prepare(verb, id, what, source);
        let log = Scratch::new(c"runtime.log", b"").map_err(|e| prepare("make its log", e))?;
        let mut whole = Command::new(&self.binary);
        whole.args(["--log-format", "json", "--log"]).arg(log.path()).args(command.get_args());
        if let Io::Streams(stdin, stdout, stderr) = io {
            whole.stdin(stdin).stdout(stdout).stderr(stderr);
        }
        let spawned = self.reaper.spawn(&mut whole);
        log.seal().map_err(|e| prepare("seal its log", e))?;
        let (runtime_pid, exit) =
            spawned.map_err(|source| Error::Spawn { binary: binary.clone(), verb, source })?;
        let patience = self.patience.with(verb);
        Ok(Launch { runtime_pid, binary, verb, id: id.to_owned(), patience, exit, log })
    }

    fn started(&self, verb: &'static str, id: &str, pid_file: &Path) -> Result<Started, Error> {
        let what = "the PID file";
        let read = std::fs::read_to_string(pid_file)
            .and_then(|text| text.trim().parse().map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e)));
        let pid: u32 = read.map_err(|source| Error::Result { verb, id: id.to_owned(), what, source })?;
        // Our child, unless it has been reaped: then the number may be anyone's.
        let number = pid.cast_signed();
        let pidfd =
            (!self.reaper.is_over(pid)).then(|| corten_sys::process::pidfd_open(number).ok()).flatten();
        Ok(Started { pid, exit: self.reaper.watch(pid), pidfd })
    }

    fn prepare(&self, verb: &'static str, id: &str, what: &'static str, source: io::Error) -> Error {
        Error::Prepare { verb, id: id.to_owned(), what, source }
    }
}

/// A runtime that was killed at the wrong moment leaves a process behind that nobody asks for any more. It's in a
/// session of its own, and has fallen to us.
fn kill_left(pid_file: &Path) {
    let pid = std::fs::read_to_string(pid_file).ok().and_then(|text| text.trim().parse::<i32>().ok());
    let Some(pid) = pid.filter(|pid| *pid > 1).map(Pid::from_raw) else { return };
    // Only a child of ours: unreaped, its PID is its own.
    let look = WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT | WaitPidFlag::WEXITED;
    if waitid(Id::Pid(pid), look).is_ok() {
        let _ = killpg(pid, Signal::SIGKILL); // it may have ended
        let _ = kill(pid, Signal::SIGKILL);
    }
}

fn null() -> Io {
    Io::Streams(Stdio::null(), Stdio::null(), Stdio::null())
}

/// The last error in a log of JSON lines; the last line when there is none of level error.
fn last_error(log: &str) -> Option<String> {
    #[derive(Deserialize)]
    struct Line {
        #[serde(default)]
        level: String,
        #[serde(default)]
        msg: String,
    }
    let mut fallback = None;
    for line in log.lines().rev().filter(|l| !l.trim().is_empty()) {
        match serde_json::from_str::<Line>(line) {
            Ok(line) if line.level == "error" || line.level == "fatal" => return Some(line.msg),
            Ok(line) => fallback = fallback.or(Some(line.msg)),
            Err(_) => fallback = fallback.or(Some(line.to_owned())),
        }
    }
    fallback
}

#[cfg(test)]
mod tests {
    use super::last_error;

    #[test]
    fn the_last_error_of_the_log_is_found() {
        let log = concat!(
            r#"{"level":"error","msg":"first"}"#,
            "\n",
            r#"{"level":"error","msg":"second"}"#,
            "\n",
            r#"{"level":"debug","msg":"later"}"#,
            "\n"
        );
        assert_eq!(last_error(log).as_deref(), Some("second"));
        assert_eq!(last_error("plain words\n").as_deref(), Some("plain words"));
        assert_eq!(last_error(""), None);
    }
}
