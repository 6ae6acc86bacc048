//! runc's command line, as clap sees it. What the flags mean is decided by the commands, one file each.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// An OCI container runtime with runc's command line
// What is given twice counts the last time, as in runc.
#[derive(Debug, Parser)]
#[command(name = "corten", version, disable_version_flag = true, args_override_self = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    /// What to do
    #[command(subcommand)]
    pub(crate) command: Option<Command>,
    /// Print the version
    #[arg(short = 'v', long)]
    pub(crate) version: bool,
}

/// What all commands take, before or after their name.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// Log debug messages too
    #[arg(long, global = true)]
    pub(crate) debug: bool,
    /// Append log messages to this file instead of stderr
    #[arg(long, global = true, value_name = "FILE")]
    pub(crate) log: Option<PathBuf>,
    /// Format of the log
    #[arg(long, global = true, value_name = "FORMAT", default_value = "text")]
    pub(crate) log_format: LogFormat,
    /// Directory of the containers' state; should be lost at a reboot
    #[arg(long, global = true, value_name = "DIR", default_value_os_t = default_root())]
    pub(crate) root: PathBuf,
    /// Log only what is at least as bad as this (crun's)
    #[arg(long, global = true, value_name = "LEVEL")]
    pub(crate) log_level: Option<LogLevel>,
    /// Let systemd make the cgroups: cgroupsPath is then slice:prefix:name
    #[arg(long, global = true)]
    pub(crate) systemd_cgroup: bool,
    /// Who makes the cgroups (crun's); disabled: nobody, there are none and no limits
    #[arg(long, global = true, value_name = "MANAGER")]
    pub(crate) cgroup_manager: Option<CgroupManager>,
    /// Go without a cgroup where none may be made and no limits are asked for: true, false, or auto: unless root
    // Not global: `spec --rootless` is another flag.
    #[arg(long, value_name = "WHEN", default_value = "auto")]
    pub(crate) rootless: String,
}

/// /run/corten/oci is root's. Users have a directory of their own, $XDG_RUNTIME_DIR; root of a user namespace is one
/// of them, unless they say by $USER that they're root.
pub(crate) fn default_root() -> PathBuf {
    let user = || {
        !nix::unistd::geteuid().is_root()
            || std::env::var_os("USER").is_none_or(|user| user != "root")
                && corten_container::in_user_namespace()
    };
    match std::env::var_os("XDG_RUNTIME_DIR").filter(|directory| !directory.is_empty()) {
        Some(directory) if user() => PathBuf::from(directory).join("corten"),
        _ => PathBuf::from("/run/corten/oci"),
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogFormat {
    Text,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum LogLevel {
    Error,
    Warning,
    Info,
    Debug,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CgroupManager {
    Cgroupfs,
    Systemd,
    Disabled,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Create a container: everything is set up, the program waits for start
    Create(Create),
    /// Start the program of a created container
    Start(Id),
    /// Create and start a container, wait for it and delete it
    Run(Run),
    /// Print the state of a container
    State(Id),
    /// Send a signal to a container's first process
    Kill(Kill),
    /// Delete a stopped container
    Delete(Delete),
    /// Run a further process in a container
    Exec(Box<Exec>),
    /// List containers
    List(List),
    /// Print what this runtime supports, as JSON
    Features,
    /// Write a config.json to begin with
    Spec(Spec),
    /// List the processes of a container
    Ps(Ps),
    /// Freeze all processes of a container
    Pause(Id),
    /// Let the processes of a paused container run on
    Resume(Id),
    /// Change limits of a container
    Update(Box<Update>),
    /// Save a running container to files, with criu
    Checkpoint(Box<Checkpoint>),
    /// Bring a container back from the files of a checkpoint
    Restore(Box<Restore>),
    /// Print what a container uses, and when it runs out of memory, as JSON lines
    Events(Events),
    /// Print the version
    Version,
}

#[derive(Debug, Args)]
pub(crate) struct Id {
    /// The container
    pub(crate) id: String,
}

#[derive(Debug, Args)]
pub(crate) struct Create {
    /// The container's name: letters, digits, and . _ + -
    pub(crate) id: String,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// Use this file in the place of the bundle's config.json (crun's)
    #[arg(short = 'f', long, value_name = "FILE")]
    pub(crate) config: Option<PathBuf>,
    /// AF_UNIX socket which gets the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// AF_UNIX socket which gets a pidfd of the container's first process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// File to write the pid of the container's first process to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Don't use pivot_root: for a root filesystem on a ramdisk
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Keep the caller's session keyring
    #[arg(long)]
    pub(crate) no_new_keyring: bool,
    /// Pass on N file descriptors after stderr and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    #[command(flatten)]
    pub(crate) create: Create,
    /// Don't wait for the container
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Don't delete the container when it has ended
    #[arg(long)]
    pub(crate) keep: bool,
    /// Don't adopt the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Kill {
    /// The container
    pub(crate) id: String,
    /// Name or number of the signal
    #[arg(default_value = "SIGTERM", allow_hyphen_values = true)]
    pub(crate) signal: String,
    /// Send it to all processes of the container
    #[arg(short, long)]
    pub(crate) all: bool,
    /// The container is an extended regular expression: all whose names it matches (crun's)
    #[arg(short, long)]
    pub(crate) regex: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// The container
    pub(crate) id: String,
    /// Kill it first if it runs; no error if there is no such container
    #[arg(short, long)]
    pub(crate) force: bool,
    /// The container is an extended regular expression: all whose names it matches (crun's)
    #[arg(short, long)]
    pub(crate) regex: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// The container
    pub(crate) id: String,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "COMMAND")]
    pub(crate) command: Vec<String>,
    /// AF_UNIX socket which gets the master of the terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// AF_UNIX socket which gets a pidfd of the process
    #[arg(long, value_name = "SOCKET")]
    pub(crate) pidfd_socket: Option<PathBuf>,
    /// Working directory in the container
    #[arg(long, value_name = "DIR")]
    pub(crate) cwd: Option<PathBuf>,
    /// Set an environment variable; may be repeated
    #[arg(short, long, value_name = "NAME=VALUE")]
    pub(crate) env: Vec<String>,
    /// Give the process a terminal
    #[arg(short, long)]
    pub(crate) tty: bool,
    /// Run as this user and group
    #[arg(short, long, value_name = "UID[:GID]")]
    pub(crate) user: Option<String>,
    /// Further groups; may be repeated
    #[arg(short = 'g', long, value_name = "GID", value_delimiter = ',')]
    pub(crate) additional_gids: Vec<u32>,
    /// Take the whole process from a file, in the form that config.json has
    #[arg(short, long, value_name = "FILE")]
    pub(crate) process: Option<PathBuf>,
    /// Don't wait for the process
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// File to write the pid to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// SELinux label
    #[arg(long, value_name = "LABEL")]
    pub(crate) process_label: Option<String>,
    /// AppArmor profile
    #[arg(long, value_name = "PROFILE")]
    pub(crate) apparmor: Option<String>,
    /// The process can't gain privileges
    #[arg(long)]
    pub(crate) no_new_privs: bool,
    /// Add a capability; may be repeated
    #[arg(short, long, value_name = "CAP")]
    pub(crate) cap: Vec<String>,
    /// Pass on N file descriptors after stderr and those of $LISTEN_FDS
    #[arg(long, value_name = "N", default_value_t = 0)]
    pub(crate) preserve_fds: u32,
    /// Don't refuse if the container is paused
    #[arg(long)]
    pub(crate) ignore_paused: bool,
    /// Run in an existing cgroup below the container's; may be repeated
    #[arg(long, value_name = "[CONTROLLER,...:]PATH")]
    pub(crate) cgroup: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct List {
    /// table or json
    #[arg(short, long, default_value = "table")]
    pub(crate) format: Format,
    /// Only the names
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Spec {
    /// Where to write config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// For a container without root's privileges
    #[arg(long = "rootless")]
    pub(crate) unprivileged: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// The container
    pub(crate) id: String,
    /// table or json
    #[arg(short, long, default_value = "table")]
    pub(crate) format: Format,
    /// Options for ps(1)
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, value_name = "PS OPTION")]
    pub(crate) options: Vec<String>,
}

#[derive(Debug, Args, Default)]
pub(crate) struct Update {
    /// The container
    pub(crate) id: String,
    /// Take the limits from a file (- is stdin), in the form of linux.resources
    #[arg(short, long, value_name = "FILE")]
    pub(crate) resources: Option<PathBuf>,
    /// Weight of block I/O, 10 to 1000
    #[arg(long, value_name = "N")]
    pub(crate) blkio_weight: Option<u16>,
    /// Period of the CPU quota, in microseconds
    #[arg(long, value_name = "USECS")]
    pub(crate) cpu_period: Option<u64>,
    /// CPU time per period, in microseconds; -1 is no limit
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(crate) cpu_quota: Option<i64>,
    /// CPU time that may be saved up, in microseconds
    #[arg(long, value_name = "USECS")]
    pub(crate) cpu_burst: Option<u64>,
    /// Period of the realtime quota, in microseconds
    #[arg(long, value_name = "USECS")]
    pub(crate) cpu_rt_period: Option<u64>,
    /// Realtime CPU time per period, in microseconds
    #[arg(long, value_name = "USECS", allow_hyphen_values = true)]
    pub(crate) cpu_rt_runtime: Option<i64>,
    /// Share of CPU time (1024 is normal)
    #[arg(long, value_name = "N")]
    pub(crate) cpu_share: Option<u64>,
    /// 1 gives CPU time only when nobody else wants it
    #[arg(long, value_name = "0|1", allow_hyphen_values = true)]
    pub(crate) cpu_idle: Option<i64>,
    /// CPUs to run on
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_cpus: Option<String>,
    /// Memory nodes to use
    #[arg(long, value_name = "LIST")]
    pub(crate) cpuset_mems: Option<String>,
    /// Memory limit, in bytes; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory: Option<String>,
    /// Memory to keep under pressure, in bytes
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_reservation: Option<String>,
    /// Limit of memory and swap together, in bytes; -1 is no limit
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) memory_swap: Option<String>,
    /// Kernel memory limit (ignored: the kernel has none any more)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory: Option<String>,
    /// Kernel TCP buffer limit (ignored)
    #[arg(long, value_name = "BYTES", allow_hyphen_values = true)]
    pub(crate) kernel_memory_tcp: Option<String>,
    /// Number of tasks; -1 is no limit
    #[arg(long, value_name = "N", allow_hyphen_values = true)]
    pub(crate) pids_limit: Option<i64>,
    /// Intel RDT's schema for the L3 cache
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) l3_cache_schema: Option<String>,
    /// Intel RDT's schema for memory bandwidth
    #[arg(long, value_name = "SCHEMA")]
    pub(crate) mem_bw_schema: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Events {
    /// The container
    pub(crate) id: String,
    /// How often to print what it uses
    #[arg(long, value_name = "DURATION", default_value = "5s", allow_hyphen_values = true)]
    pub(crate) interval: String,
    /// Print what it uses now, and end
    #[arg(long)]
    pub(crate) stats: bool,
    /// Tell also when its processes have to wait for CPU, memory or I/O
    #[arg(long)]
    pub(crate) pressure: bool,
}

/// What checkpoint and restore share.
#[derive(Debug, Args)]
pub(crate) struct Criu {
    /// Directory of the images
    #[arg(long, value_name = "DIR")]
    pub(crate) image_path: Option<PathBuf>,
    /// Directory of criu's log and other files (that of the images by default)
    #[arg(long, value_name = "DIR")]
    pub(crate) work_path: Option<PathBuf>,
    /// Allow open TCP connections
    #[arg(long)]
    pub(crate) tcp_established: bool,
    /// Close TCP connections rather than restore them
    #[arg(long)]
    pub(crate) tcp_close: bool,
    /// Allow UNIX sockets that are connected to outside
    #[arg(long)]
    pub(crate) ext_unix_sk: bool,
    /// Allow a session and terminal that are the caller's
    #[arg(long)]
    pub(crate) shell_job: bool,
    /// Allow file locks
    #[arg(long)]
    pub(crate) file_locks: bool,
    /// soft, full, strict or ignore
    #[arg(long, value_name = "MODE")]
    pub(crate) manage_cgroups_mode: Option<String>,
    /// Leave this namespace to somebody else; only network, which always is; may be repeated
    #[arg(long, value_name = "NAMESPACE")]
    pub(crate) empty_ns: Vec<String>,
    /// Remove from earlier images what later ones have
    #[arg(long)]
    pub(crate) auto_dedup: bool,
    /// Fetch memory when it is used
    #[arg(long)]
    pub(crate) lazy_pages: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Checkpoint {
    /// The container
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// Images of an earlier dump, relative to those of this one: save only what has changed
    #[arg(long, value_name = "DIR")]
    pub(crate) parent_path: Option<PathBuf>,
    /// Let the container run on
    #[arg(long)]
    pub(crate) leave_running: bool,
    /// Leave out TCP connections that are being made
    #[arg(long)]
    pub(crate) tcp_skip_in_flight: bool,
    /// Give deleted files that are open a name again
    #[arg(long)]
    pub(crate) link_remap: bool,
    /// Descriptor that gets a NUL byte when pages can be fetched
    #[arg(long, value_name = "FD", allow_hyphen_values = true)]
    pub(crate) status_fd: Option<i32>,
    /// Send the memory to this page server
    #[arg(long, value_name = "ADDRESS:PORT")]
    pub(crate) page_server: Option<String>,
    /// Save only memory, and let the container run on
    #[arg(long)]
    pub(crate) pre_dump: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Restore {
    /// The container's name
    pub(crate) id: String,
    #[command(flatten)]
    pub(crate) criu: Criu,
    /// Directory with config.json
    #[arg(short, long, value_name = "DIR", default_value = ".")]
    pub(crate) bundle: PathBuf,
    /// AF_UNIX socket which gets the master of the container's terminal
    #[arg(long, value_name = "SOCKET")]
    pub(crate) console_socket: Option<PathBuf>,
    /// File to write the pid of the container's first process to
    #[arg(long, value_name = "FILE")]
    pub(crate) pid_file: Option<PathBuf>,
    /// Don't wait for the container
    #[arg(short, long)]
    pub(crate) detach: bool,
    /// Don't adopt the container's orphans
    #[arg(long)]
    pub(crate) no_subreaper: bool,
    /// Accepted as for create; criu enters the root in its own way
    #[arg(long)]
    pub(crate) no_pivot: bool,
    /// Security profile in place of the saved one
    #[arg(long, value_name = "TYPE:NAME")]
    pub(crate) lsm_profile: Option<String>,
    /// Mount context in place of the saved one
    #[arg(long, value_name = "CONTEXT")]
    pub(crate) lsm_mount_context: Option<String>,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Command {
        let words = std::iter::once("corten").chain(line.split(' '));
        Cli::try_parse_from(words)
            .unwrap_or_else(|error| panic!("{line}: {error}"))
            .command
            .expect("a command")
    }

    #[test]
    fn consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn flags_before_and_after_the_id() {
        for line in ["delete --force x", "delete x --force", "delete -f x"] {
            assert!(
                matches!(parse(line), Command::Delete(Delete { id, force: true, .. }) if id == "x"),
                "{line}"
            );
        }
        for line in ["create --bundle /b --pid-file /p x", "create x --pid-file /p -b /b"] {
            let Command::Create(create) = parse(line) else { panic!("{line}") };
            assert_eq!((create.id.as_str(), create.bundle.to_str()), ("x", Some("/b")));
        }
        assert!(
            matches!(parse("kill --all x KILL"), Command::Kill(Kill { all: true, signal, .. }) if signal == "KILL")
        );
        assert!(matches!(parse("kill x"), Command::Kill(Kill { signal, .. }) if signal == "SIGTERM"));
    }

    #[test]
    fn global_flags_go_anywhere() {
        let line = "corten --root /r --log /l --log-format json --systemd-cgroup --rootless=auto state x";
        let cli = Cli::try_parse_from(line.split(' ')).expect("parses");
        assert_eq!((cli.global.root.to_str(), cli.global.log_format), (Some("/r"), LogFormat::Json));
        assert!(cli.global.systemd_cgroup);
        let cli = Cli::try_parse_from("corten state x --root /r".split(' ')).expect("parses");
        assert_eq!(cli.global.root.to_str(), Some("/r"));
        let line = "corten --root /a --debug --debug --root /b update x --memory 1 --memory 2";
        let cli = Cli::try_parse_from(line.split(' ')).expect("the last one counts");
        assert_eq!(cli.global.root.to_str(), Some("/b"));
        assert!(
            matches!(cli.command, Some(Command::Update(update)) if update.memory.as_deref() == Some("2"))
        );
    }

    #[test]
    fn the_command_of_exec_keeps_its_flags() {
        let Command::Exec(exec) = parse("exec -t --env A=1 -e B=2 --user 1:2 x sh -c true --cwd /") else {
            panic!()
        };
        assert_eq!(exec.command, ["sh", "-c", "true", "--cwd", "/"]);
        assert_eq!(exec.env, ["A=1", "B=2"]);
        assert!(exec.tty && exec.cwd.is_none());
        let Command::Exec(exec) = parse("exec --process /p --detach --pid-file /f x") else { panic!() };
        assert!(exec.detach && exec.command.is_empty());
    }

    #[test]
    fn flags_of_criu() {
        let line = "checkpoint x --image-path /i --work-path /w --parent-path ../p --leave-running --tcp-established \
            --tcp-skip-in-flight --link-remap --ext-unix-sk --shell-job --lazy-pages --status-fd -1 \
            --page-server h:1 --file-locks --pre-dump --manage-cgroups-mode soft --empty-ns network --auto-dedup";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        let Command::Checkpoint(checkpoint) = parse(&line) else { panic!() };
        assert_eq!((checkpoint.id.as_str(), checkpoint.status_fd), ("x", Some(-1)));
        let line = "restore -d -b /b --image-path /i --console-socket /c --pid-file /p --no-subreaper --no-pivot \
            --lsm-profile apparmor:x --lsm-mount-context c --lazy-pages --auto-dedup --tcp-close x";
        let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(matches!(parse(&line), Command::Restore(restore) if restore.detach && restore.id == "x"));
    }

    #[test]
    fn update_takes_negative_numbers() {
        let Command::Update(update) = parse("update x --memory -1 --pids-limit -1 --cpu-quota -1") else {
            panic!()
        };
        assert_eq!(
            (update.memory.as_deref(), update.pids_limit, update.cpu_quota),
            (Some("-1"), Some(-1), Some(-1))
        );
        assert!(
            matches!(parse("update -r - x"), Command::Update(update) if update.resources == Some("-".into()))
        );
    }
}
