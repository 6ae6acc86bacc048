//! [`Runtime`]: a root directory with containers in it. Each operation is a file of its own.

use std::path::PathBuf;

use oci_spec::runtime::{LinuxResources, Process};

use crate::{CreateOptions, Error, ExecOptions, Outcome, Result, RunOptions, State};

/// A directory of containers, and how they are run.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// Holds one directory per container.
    pub root: PathBuf,
    /// Use systemd's cgroup driver (`slice:prefix:name` paths).
    pub systemd_cgroup: bool,
}

impl Runtime {
    /// The containers under `root`, with the cgroupfs driver.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into(), systemd_cgroup: false }
    }

    /// Creates a container: everything is set up and init waits for [`Self::start`]. Returns init's pid.
    ///
    /// # Errors
    /// Any; the system is then as before.
    pub fn create(&self, id: &str, _options: &CreateOptions) -> Result<i32> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Creates and starts a container, and unless detached waits for it, passing signals on, and deletes it.
    ///
    /// # Errors
    /// Any; the system is then as before.
    pub fn run(&self, id: &str, _create: &CreateOptions, _run: &RunOptions) -> Result<Outcome> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Starts the program of a created container; returns once it runs and poststart hooks are done.
    ///
    /// # Errors
    /// [`Error::Status`] unless created; [`Error::Program`] or [`Error::Init`] if the program can't be executed.
    pub fn start(&self, id: &str) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// The container's state.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    pub fn state(&self, id: &str) -> Result<State> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// The states of all containers, by id; unreadable ones are left out and logged.
    ///
    /// # Errors
    /// If the root directory can't be read (that it doesn't exist is not an error).
    pub fn list(&self) -> Result<Vec<State>> {
        Ok(Vec::new())
    }

    /// Sends a signal to init, or with `all` to every process of the container.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Finished`] or [`Error::Status`] if the container is stopped.
    pub fn kill(&self, id: &str, _signal: i32, _all: bool) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Deletes a stopped container; with `force` kills it first, and also takes away what a killed `create` left.
    /// `force` on a container that doesn't exist is no error.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Status`] if it isn't stopped.
    pub fn delete(&self, id: &str, _force: bool) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// The container's own `process`, as a template for [`Self::exec`].
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::Record`].
    pub fn process(&self, id: &str) -> Result<Process> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Runs a further process in the container.
    ///
    /// # Errors
    /// [`Error::Status`] if it is stopped or paused; [`Error::Program`] if the program can't be executed.
    pub fn exec(&self, id: &str, _options: &ExecOptions) -> Result<Outcome> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// [`Error::Status`] unless created or running.
    pub fn pause(&self, id: &str) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Thaws all processes.
    ///
    /// # Errors
    /// [`Error::Status`] unless paused.
    pub fn resume(&self, id: &str) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// Changes the limits given; what isn't given stays as it is.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn update(&self, id: &str, _resources: &LinuxResources) -> Result<()> {
        Err(Error::NotFound { id: id.to_owned() })
    }

    /// The pids of all processes of the container, in the caller's PID namespace.
    ///
    /// # Errors
    /// [`Error::Cgroup`].
    pub fn processes(&self, id: &str) -> Result<Vec<i32>> {
        Err(Error::NotFound { id: id.to_owned() })
    }
}
