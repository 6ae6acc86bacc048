//! The command line.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Pods, containers and images of cortend.
#[derive(Debug, Parser)]
#[command(name = "cortenctl", version)]
pub(crate) struct Arguments {
    /// The daemon's socket [default: $CORTEN_SOCKET, else /run/corten/cortend.sock]
    #[arg(long, global = true, value_name = "PATH")]
    pub(crate) socket: Option<PathBuf>,
    /// What to print: a table for people or JSON for scripts
    #[arg(long, short, global = true, value_name = "FORMAT", default_value = "table")]
    pub(crate) output: Output,
    #[command(subcommand)]
    pub(crate) command: Command,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    Table,
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Pull an image from a registry
    Pull(Pull),
    /// List images
    Images,
    /// Remove images
    Rmi(Names),
    /// Run a command in a new container (in a pod of its own, unless --pod names one)
    Run(Box<Run>),
    /// List containers
    Ps(Ps),
    /// List pods
    Pods,
    /// Work on pods
    #[command(subcommand)]
    Pod(Pod),
    /// Print what a container has written
    Logs(Logs),
    /// Run a command in a running container; its exit code is ours
    Exec(Exec),
    /// Stop containers: their stop signal, after a while SIGKILL
    Stop(Stop),
    /// Remove containers, and the pods that were made for them
    Rm(Rm),
    /// Print all that is known of containers, pods or images, as JSON
    Inspect(Names),
    /// Print what containers use
    Stats(Stats),
    /// Print the versions of client and daemon
    Version,
    /// Print whether the daemon is ready
    #[command(visible_alias = "info")]
    Status,
    /// Look for what keeps the daemon or this machine from running pods
    Doctor,
}

#[derive(Debug, Args)]
pub(crate) struct Names {
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Pull {
    /// The image, e.g. registry.example:5000/app:v1 or .../app@sha256:...
    pub(crate) image: String,
    /// User at the registry
    #[arg(long, value_name = "NAME", requires = "password_stdin")]
    pub(crate) username: Option<String>,
    /// Read the password from standard input
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// Progress as JSON, a line each (the same as --output json)
    #[arg(long)]
    pub(crate) json: bool,
    /// Print nothing but the image's id
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullPolicy {
    Missing,
    Always,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Network {
    /// The pod has a network of its own
    Pod,
    /// The pod uses the host's network
    Host,
}

/// What a pod that we make looks like.
#[derive(Debug, Args)]
pub(crate) struct PodOptions {
    /// Lead a port of the host into the pod
    #[arg(long, short, value_name = "[ADDRESS:]HOST:POD[/PROTOCOL]")]
    pub(crate) publish: Vec<String>,
    /// The pod's network
    #[arg(long, value_name = "NETWORK", default_value = "pod")]
    pub(crate) network: Network,
    /// Host name in the pod
    #[arg(long, value_name = "NAME")]
    pub(crate) hostname: Option<String>,
    /// Kubernetes namespace to file the pod under
    #[arg(long, value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
    /// Where logs go [default: $CORTEN_LOG_DIR, else /var/log/corten]
    #[arg(long, value_name = "DIR")]
    pub(crate) log_dir: Option<PathBuf>,
    /// Parent cgroup of the pod
    #[arg(long, value_name = "PATH")]
    pub(crate) cgroup_parent: Option<String>,
    /// A sysctl of the pod's namespaces
    #[arg(long, value_name = "NAME=VALUE")]
    pub(crate) sysctl: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Run {
    /// Don't wait: print the container's id
    #[arg(long, short)]
    pub(crate) detach: bool,
    /// Remove the container (and its pod) when it has ended
    #[arg(long)]
    pub(crate) rm: bool,
    /// Keep standard input open (not yet)
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give it a terminal (not yet)
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Name of the container and its pod
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Add the container to this pod instead of making one
    #[arg(long, value_name = "POD", conflicts_with_all = ["publish", "hostname", "network", "cgroup_parent", "sysctl"])]
    pub(crate) pod: Option<String>,
    /// Environment variable; without a value, the one that it has here
    #[arg(long, short, value_name = "NAME[=VALUE]")]
    pub(crate) env: Vec<String>,
    /// Mount a directory or file of the host
    #[arg(long, short, value_name = "SOURCE:TARGET[:ro]")]
    pub(crate) volume: Vec<String>,
    /// Memory limit, e.g. 512m
    #[arg(long, short, value_name = "BYTES")]
    pub(crate) memory: Option<String>,
    /// CPU limit, e.g. 1.5
    #[arg(long, value_name = "CPUS")]
    pub(crate) cpus: Option<String>,
    /// Run as this user
    #[arg(long, short, value_name = "USER[:GID]")]
    pub(crate) user: Option<String>,
    /// Run this instead of the image's entrypoint
    #[arg(long, value_name = "PROGRAM")]
    pub(crate) entrypoint: Option<String>,
    /// Working directory in the container
    #[arg(long, short, value_name = "DIR")]
    pub(crate) workdir: Option<String>,
    /// Label
    #[arg(long, short, value_name = "NAME=VALUE")]
    pub(crate) label: Vec<String>,
    /// All capabilities and devices, no seccomp filter
    #[arg(long)]
    pub(crate) privileged: bool,
    /// The root file system can't be written to
    #[arg(long)]
    pub(crate) read_only: bool,
    /// When to ask the registry
    #[arg(long, value_name = "WHEN", default_value = "missing")]
    pub(crate) pull: PullPolicy,
    #[command(flatten)]
    pub(crate) pod_options: PodOptions,
    /// The image
    pub(crate) image: String,
    /// Arguments for the entrypoint, or the command if it has none
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Ps {
    /// Also those that don't run
    #[arg(long, short)]
    pub(crate) all: bool,
    /// Print only ids
    #[arg(long, short)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Pod {
    /// Make a pod without containers and print its id
    Create(PodCreate),
    /// Stop pods and all that runs in them
    Stop(Names),
    /// Remove pods and their containers
    Rm(PodRm),
}

#[derive(Debug, Args)]
pub(crate) struct PodCreate {
    /// Name of the pod
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// All containers of the pod share one PID namespace
    #[arg(long)]
    pub(crate) share_pid: bool,
    #[command(flatten)]
    pub(crate) options: PodOptions,
}

#[derive(Debug, Args)]
pub(crate) struct PodRm {
    /// Also if something still runs in them
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Logs {
    /// Go on until the container ends
    #[arg(long, short)]
    pub(crate) follow: bool,
    /// Only the last lines
    #[arg(long, short = 'n', value_name = "LINES")]
    pub(crate) tail: Option<usize>,
    /// Show when each line was written
    #[arg(long, short)]
    pub(crate) timestamps: bool,
    /// Only what was written since (RFC 3339, or an age such as 10m)
    #[arg(long, value_name = "TIME")]
    pub(crate) since: Option<String>,
    /// Name, id, or beginning of the id
    pub(crate) container: String,
}

#[derive(Debug, Args)]
pub(crate) struct Exec {
    /// Kill it after this many seconds; 0 is never
    #[arg(long, value_name = "SECONDS", default_value = "0")]
    pub(crate) timeout: u32,
    /// Keep standard input open (not yet)
    #[arg(long, short)]
    pub(crate) interactive: bool,
    /// Give it a terminal (not yet)
    #[arg(long, short)]
    pub(crate) tty: bool,
    /// Name, id, or beginning of the id
    pub(crate) container: String,
    /// The program and its arguments
    #[arg(required = true, trailing_var_arg = true, allow_hyphen_values = true)]
    pub(crate) command: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stop {
    /// Seconds until SIGKILL
    #[arg(long, short, value_name = "SECONDS", default_value = "10")]
    pub(crate) timeout: u32,
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Rm {
    /// Also those that run
    #[arg(long, short)]
    pub(crate) force: bool,
    /// Names, ids, or beginnings of ids
    #[arg(required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Stats {
    /// Names, ids, or beginnings of ids; all running ones if none are given
    pub(crate) names: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Arguments {
        Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|e| panic!("{line}: {e}"))
    }

    #[test]
    fn the_definition_is_sound() {
        <Arguments as clap::CommandFactory>::command().debug_assert();
    }

    #[test]
    fn what_follows_the_image_belongs_to_the_container() {
        let args = parse("cortenctl run --rm -e A=1 -p 80:80 img sh -c ls --rm -d");
        let Command::Run(run) = args.command else { panic!("not run") };
        assert!(run.rm && !run.detach);
        assert_eq!(run.image, "img");
        assert_eq!(run.command, ["sh", "-c", "ls", "--rm", "-d"]);
        assert_eq!(run.pod_options.publish, ["80:80"]);
    }

    #[test]
    fn global_options_go_anywhere() {
        let args = parse("cortenctl ps -a --output json --socket /s");
        assert_eq!(args.output, Output::Json);
        assert_eq!(args.socket, Some("/s".into()));
        let Command::Exec(exec) = parse("cortenctl exec web ls -o").command else { panic!("not exec") };
        assert_eq!(exec.command, ["ls", "-o"]);
    }

    #[test]
    fn a_pods_network_is_not_the_containers_to_choose() {
        let line = "cortenctl run --pod p -p 80:80 img";
        assert!(Arguments::try_parse_from(line.split(' ')).is_err());
    }
}
