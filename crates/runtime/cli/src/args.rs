//! The command line, as runc has it (runc 1.5; containerd's go-runc, CRI-O and podman call exactly these).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI container runtime
#[derive(Debug, Parser)]
#[command(name = "corten", disable_version_flag = true)]
pub(crate) struct Arguments {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What comes before the verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Log debug messages too
    #[arg(long)]
    pub(crate) debug: bool,
    /// Write the log to this file instead of standard error
    #[arg(long, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// The shape of the log
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Where the state of containers is kept [default: /run/corten-oci, or $XDG_RUNTIME_DIR/corten-oci for a user]
    #[arg(long, value_name = "DIR")]
    pub(crate) root: Option<PathBuf>,
    /// Use systemd's cgroup driver
    #[arg(long)]
    pub(crate) systemd_cgroup: bool,
    /// Ignore cgroup permission errors: true, false or auto
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: String,
    /// Accepted for older callers, and ignored
    #[arg(long, value_name = "PATH", hide = true)]
    pub(crate) criu: Option<PathBuf>,
}

/// The shape of the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

/// The verbs.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container; its program waits for start
    Create(Create),
    /// Start the program of a created container
    Start(Id),
    /// Create and start a container
    Run(Run),
    /// Run a further process in a container
    Exec(Box<Exec>),
    /// Send a signal to a container's init
    Kill(Kill),
    /// Delete a stopped container
    Delete(Delete),
    /// Print the state of a container
    State(Id),
    /// List containers
    List(List),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze all processes of a container
    Pause(Id),
    /// Thaw all processes of a container
    Resume(Id),
    /// Change the limits of a container
    Update(Box<Update>),
    /// Print what this runtime supports
    Features,
    /// Write an example config.json
    Spec(Spec),
    /// Print the version
    #[command(visible_aliases = ["--version", "-v"])]
    Version,
    /// Print the resource usage of a container (not supported yet)
    Events(Unsupported),
    /// Checkpoint a container (not supported yet)
    Checkpoint(Unsupported),
    /// Restore a container (not supported yet)
    Restore(Unsupported),
}

impl Command {
    /// The verb, as typed.
    pub(crate) fn verb(&self) -> &'static str {
        match self {
            Self::Create(_) => "create",
            Self::Start(_) => "start",
            Self::Run(_) => "run",
            Self::Exec(_) => "exec",
            Self::Kill(_) => "kill",
            Self::Delete(_) => "delete",
            Self::State(_) => "state",
            Self::List(_) => "list",
            Self::Ps(_) => "ps",
            Self::Pause(_) => "pause",
            Self::Resume(_) => "resume",
            Self::Update(_) => "update",
            Self::Features => "features",
            Self::Spec(_) => "spec",
            Self::Version => "version",
            Self::Events(_) => "events",
            Self::Checkpoint(_) => "checkpoint",
            Self::Restore(_) => "restore",
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// The bundle: a directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) bundle: PathBuf,
    /// A socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// A socket that gets init's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Where to write init's pid
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Move the root file system over / rather than pivot_root
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass this many file descriptors after standard error on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Return once the program runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Don't become the subreaper of the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Keep the container when its program has exited
    #[arg(long)]
    pub(crate) keep: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(value_name = "COMMAND", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
    /// A socket that gets the terminal's master
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// A socket that gets the process's pidfd
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// The working directory
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// An environment variable (repeatable)
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// The user
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Additional groups (repeatable)
    #[arg(short = 'g', long = "additional-gids", value_name = "GID")]
    pub(crate) additional_gids: Vec<u32>,
    /// A file with the process as config.json has it
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Return once the program runs
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Where to write the process's pid
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// The SELinux label of the process
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// The AppArmor profile of the process
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// Set no_new_privs
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// A capability to add (repeatable)
    #[arg(short, long, value_name = "CAPABILITY")]
    pub(crate) cap: Vec<String>,
    /// Pass this many file descriptors after standard error on
    #[arg(long, value_name = "N", default_value_t = 0, hide_default_value = true)]
    pub(crate) preserve_fds: u32,
    /// Run although the container is paused; the process waits for the thaw
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// A cgroup below the container's own (repeatable, one for each v1 controller)
    #[arg(long, value_name = "PATH | CONTROLLER[,…]:PATH")]
    pub(crate) cgroup: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// A name or a number
    #[arg(value_name = "SIGNAL", default_value = "SIGTERM", allow_hyphen_values = true)]
    pub(crate) signal: String,
    /// Send it to all processes
    #[arg(short, long)]
    pub(crate) all: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// Kill the container first if it runs; it is no error if there is none
    #[arg(short, long)]
    pub(crate) force: bool,
}

/// How a list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Print ids only
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// How to print
    #[arg(short, long, value_enum, default_value = "table")]
    pub(crate) format: Format,
    /// Options for ps(1) [default: -ef]
    #[arg(value_name = "PS-OPTIONS", trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Where to write config.json
    #[arg(short, long, value_name = "DIR", default_value = ".", hide_default_value = true)]
    pub(crate) bundle: PathBuf,
    /// For a user without privileges
    #[arg(long)]
    pub(crate) rootless: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Update {
    #[arg(value_name = "CONTAINER-ID")]
    pub(crate) id: String,
    /// A file (- is standard input) with linux.resources as JSON; the other options are then ignored
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// 10 to 1000
    #[arg(long, value_name = "WEIGHT")]
    pub(crate) blkio_weight: Option<u16>,
    /// Microseconds
    #[arg(long, value_name = "µs")]
    pub(crate) cpu_period: Option<u64>,
    /// Microseconds; -1 is no limit
    #[arg(long, value_name = "µs", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// Microseconds
    #[arg(long, value_name = "µs")]
    pub(crate) cpu_burst: Option<u64>,
    /// Microseconds
    #[arg(long, value_name = "µs")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Microseconds
    #[arg(long, value_name = "µs", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// 2 to 262144
    #[arg(long, value_name = "SHARES")]
    pub(crate) cpu_share: Option<u64>,
    /// Such as 0-3,7
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Such as 0,1
    #[arg(long, value_name = "NODES")]
    pub(crate) cpuset_mems: Option<String>,
    /// Bytes (k, m, g suffixes); -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Bytes (k, m, g suffixes)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Memory and swap together, bytes (k, m, g suffixes); -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Processes; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
}

#[derive(Debug, Args)]
pub(crate) struct Unsupported {
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, hide = true)]
    pub(crate) rest: Vec<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn options_are_accepted_after_the_id() {
        let parsed =
            Arguments::try_parse_from(["corten", "create", "one", "--bundle", "/b", "--pid-file=/p"]);
        let Command::Create(create) = parsed.expect("valid").command else { panic!("not create") };
        assert_eq!((create.id.as_str(), create.bundle), ("one", "/b".into()));
    }

    #[test]
    fn the_command_of_exec_keeps_its_own_options() {
        let parsed =
            Arguments::try_parse_from(["corten", "exec", "-t", "one", "ls", "-la", "--all"]).expect("valid");
        let Command::Exec(exec) = parsed.command else { panic!("not exec") };
        assert_eq!(exec.command, ["ls", "-la", "--all"]);
        assert!(exec.tty);
    }

    #[test]
    fn kill_takes_what_docker_sends() {
        for line in [&["corten", "kill", "--all", "x", "9"][..], &["corten", "kill", "x", "KILL", "-a"]] {
            let Command::Kill(kill) = Arguments::try_parse_from(line).expect("valid").command else {
                panic!("not kill")
            };
            assert!(kill.all);
        }
    }
}
