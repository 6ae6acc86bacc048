//! What a caller may ask for beside config.json: runc's command line options, typed.

use std::path::PathBuf;

use oci_spec::runtime::Process;

/// How to create a container (`create` and `run`).
#[derive(Debug, Clone, Default)]
pub struct CreateOptions {
    /// The bundle's directory: holds config.json; relative paths of the config are relative to it.
    pub bundle: PathBuf,
    /// AF_UNIX socket which gets the terminal's master by SCM_RIGHTS.
    pub console_socket: Option<PathBuf>,
    /// AF_UNIX socket which gets init's pidfd by SCM_RIGHTS.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write init's pid.
    pub pid_file: Option<PathBuf>,
    /// How many file descriptors after stderr (3, 4, ...) the container inherits, beside those of LISTEN_FDS. They must be
    /// the caller's from its start: see [`crate::inherited_descriptors`].
    pub preserve_fds: u32,
    /// Move the rootfs over `/` rather than pivot_root (for hosts that run from a ramdisk).
    pub no_pivot: bool,
    /// Keep the caller's session keyring.
    pub no_new_keyring: bool,
    /// The file that takes config.json's place; relative to the bundle. May be a pipe, whose end is waited for.
    pub config: Option<PathBuf>,
    /// Do as crun does in what configs for it count on: annotations may name files and sockets of the host
    /// (`run.oci.hooks.stdout`, `run.oci.hooks.stderr`, `run.oci.pidfd_receiver`), and createContainer hooks start in the
    /// bundle. Only where whoever may write annotations has business with the host's files.
    pub like_crun: bool,
}

/// What `run` adds to [`CreateOptions`].
#[derive(Debug, Clone, Default)]
pub struct RunOptions {
    /// Return once the program runs; the caller takes care of the rest.
    pub detach: bool,
    /// Leave the stopped container in place, with its state.
    pub keep: bool,
    /// Don't become the subreaper of the container's orphans while waiting. Only a subreaper collects children of the
    /// calling process other than the container: for a process that has children of its own this has to be set.
    pub no_subreaper: bool,
}

/// How to run a further process in a container (`exec`).
#[derive(Debug, Clone)]
pub struct ExecOptions {
    /// The process; [`crate::Runtime::process`] gives the container's own as a template.
    pub process: Process,
    /// AF_UNIX socket which gets the terminal's master by SCM_RIGHTS.
    pub console_socket: Option<PathBuf>,
    /// AF_UNIX socket which gets the process's pidfd by SCM_RIGHTS.
    pub pidfd_socket: Option<PathBuf>,
    /// Where to write the process's pid.
    pub pid_file: Option<PathBuf>,
    /// Return once the program runs.
    pub detach: bool,
    /// How many file descriptors after stderr the process inherits; as for [`CreateOptions`].
    pub preserve_fds: u32,
    /// Go on although the container is paused (the process then waits for the thaw).
    pub ignore_paused: bool,
    /// A cgroup below the container's own to run in: `path`, or `controller[,controller]:path`.
    pub cgroups: Vec<String>,
}

impl ExecOptions {
    /// Options that run `process` in the foreground.
    #[must_use]
    pub fn new(process: Process) -> Self {
        Self {
            process,
            console_socket: None,
            pidfd_socket: None,
            pid_file: None,
            detach: false,
            preserve_fds: 0,
            ignore_paused: false,
            cgroups: Vec::new(),
        }
    }
}

/// How a process that we started ended, as far as we waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It exited with this code; 128 + signal if a signal killed it.
    Exited(i32),
    /// It runs on under this pid.
    Detached(i32),
}
