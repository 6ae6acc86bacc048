//! What the tests run inside containers: one static binary that needs no libc, no shell and no files.
//!
//! `workload COMMAND [ARGUMENT...]`; see [`COMMANDS`]. Output is flushed line by line; what the tests look at is printed
//! as `name: value` lines.
#![forbid(unsafe_code)]

mod hold;
mod inspect;
mod process;
mod serve;
mod syscalls;

use std::io::{Read, Write};
use std::time::Duration;

/// The outcome of a command: an exit code, or what went wrong.
type Outcome = Result<u8, Box<dyn std::error::Error>>;
type Command = fn(&[String]) -> Outcome;

/// Every command, with what it is for.
const COMMANDS: &[(&str, Command, &str)] = &[
    ("sleep", sleep, "[SECONDS]: does nothing, for ever by default; ends on SIGTERM"),
    ("echo", echo, "WORD...: prints the words"),
    ("exit", exit, "CODE: ends with the code"),
    ("cat-stdin", cat_stdin, "copies its input to its output"),
    ("log", log, "N [stdout|stderr|both] [MS]: N numbered lines, MS apart"),
    ("long-line", long_line, "BYTES: one line of so many bytes"),
    ("partial", partial, "TEXT: prints without a newline at the end"),
    ("write", write, "FILE TEXT: writes a file"),
    ("read", read, "FILE: prints a file"),
    ("allocate", process::allocate, "BYTES: touches so much memory, says so, then sleeps"),
    ("crash", process::crash, "aborts"),
    ("segv", process::segv, "dies of SIGSEGV"),
    ("kill-self", process::kill_self, "SIGNAL: sends itself a signal"),
    ("fork", process::fork, "[N]: leaves N orphans that sleep, and ends"),
    ("tree", process::tree, "[N]: N children that sleep, and sleeps; ends on SIGTERM without them"),
    ("spawn", process::spawn, "N: tries to have N children at once, prints how many it got"),
    ("ignore-sigterm", process::ignore_sigterm, "sleeps and ignores SIGTERM"),
    ("trap", process::trap, "prints the signals it gets; ends on SIGINT"),
    ("burn", process::burn, "uses a CPU until killed"),
    ("serve", serve::serve, "PORT [TEXT]: HTTP server that answers TEXT"),
    ("get", serve::get, "HOST:PORT: HTTP client that prints the answer's body"),
    ("lock", hold::lock, "FILE: locks it (flock), and sleeps"),
    (
        "answer",
        hold::answer,
        "HOST:PORT: connects, answers each line `x` with `got: x`, says when the connection ends",
    ),
    ("backlog", hold::backlog, "PORT: listens and never accepts"),
    ("stream", hold::stream, "SOCKET: connects to the UNIX socket, and sleeps"),
    ("datagrams", hold::datagrams, "SOCKET: connects to the UNIX socket and sends numbers"),
    ("env", inspect::env, "prints the environment"),
    ("id", inspect::id, "uid, gid, groups, umask"),
    ("pwd", inspect::pwd, "working directory"),
    ("caps", inspect::caps, "capabilities, no_new_privs and seccomp mode from /proc/self/status"),
    ("limits", inspect::limits, "NAME...: soft and hard rlimits"),
    ("mounts", inspect::mounts, "/proc/self/mountinfo"),
    ("fds", inspect::fds, "open descriptors and what they are"),
    ("namespaces", inspect::namespaces, "the namespaces' inode numbers"),
    ("cgroup", inspect::cgroup, "/proc/self/cgroup"),
    ("hostname", inspect::hostname, "host and domain name"),
    ("tty", inspect::tty, "whether 0, 1, 2 are terminals, and their size"),
    ("stat", inspect::stat, "PATH...: type, mode, owner, device numbers"),
    ("ls", inspect::ls, "PATH: names in a directory, sorted"),
    ("mkdir", syscalls::mkdir, "PATH [MODE]"),
    ("mknod", syscalls::mknod, "PATH c|b MAJOR MINOR"),
    ("open", syscalls::open, "PATH [rw]: opens a file"),
    ("unshare", syscalls::unshare, "KIND...: user, mount, net, pid, uts, ipc, cgroup"),
    ("mount", syscalls::mount, "SOURCE TARGET TYPE"),
    ("umount", syscalls::umount, "TARGET"),
    ("sethostname", syscalls::sethostname, "NAME"),
    ("chown", syscalls::chown, "PATH UID GID"),
    ("raw-socket", syscalls::raw_socket, "opens an ICMP socket"),
    ("chroot", syscalls::chroot, "PATH"),
    ("all", all, "COMMAND [ARG...] , COMMAND...: one after another, whatever each says"),
];

fn main() -> std::process::ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    match run(&arguments) {
        Ok(code) => code.into(),
        Err(error) => {
            eprintln!("workload {}: {error}", arguments.join(" "));
            1.into()
        }
    }
}

fn run(arguments: &[String]) -> Outcome {
    let Some((name, rest)) = arguments.split_first() else { return help() };
    match COMMANDS.iter().find(|(n, _, _)| n == name) {
        Some((_, command, _)) => command(rest),
        None => help(),
    }
}

fn help() -> Outcome {
    for (name, _, what) in COMMANDS {
        eprintln!("{name:16} {what}");
    }
    Ok(2)
}

/// The argument at `index`, parsed, or a default.
fn number<T: std::str::FromStr>(arguments: &[String], index: usize, default: T) -> Result<T, T::Err> {
    arguments.get(index).map_or(Ok(default), |a| a.parse())
}

/// The argument at `index`.
fn word(arguments: &[String], index: usize) -> Result<&str, String> {
    arguments.get(index).map(String::as_str).ok_or_else(|| format!("argument {} is missing", index + 1))
}

fn sleep(arguments: &[String]) -> Outcome {
    match arguments.first() {
        Some(seconds) => {
            std::thread::sleep(Duration::from_secs_f64(seconds.parse()?));
            Ok(0)
        }
        None => process::until_terminated(),
    }
}

fn echo(arguments: &[String]) -> Outcome {
    println!("{}", arguments.join(" "));
    Ok(0)
}

fn exit(arguments: &[String]) -> Outcome {
    Ok(number(arguments, 0, 0)?)
}

fn cat_stdin(_: &[String]) -> Outcome {
    std::io::copy(&mut std::io::stdin().lock(), &mut std::io::stdout().lock())?;
    Ok(0)
}

fn log(arguments: &[String]) -> Outcome {
    let count: u64 = number(arguments, 0, 10)?;
    let stream = arguments.get(1).map_or("stdout", String::as_str);
    let pause = Duration::from_millis(number(arguments, 2, 0)?);
    for n in 1..=count {
        if stream != "stderr" {
            println!("line {n}");
        }
        if stream != "stdout" {
            eprintln!("error line {n}");
        }
        if !pause.is_zero() {
            std::thread::sleep(pause);
        }
    }
    Ok(0)
}

fn long_line(arguments: &[String]) -> Outcome {
    let bytes: usize = number(arguments, 0, 1 << 16)?;
    println!("{}", "x".repeat(bytes));
    Ok(0)
}

fn partial(arguments: &[String]) -> Outcome {
    print!("{}", arguments.join(" "));
    std::io::stdout().flush()?;
    Ok(0)
}

fn write(arguments: &[String]) -> Outcome {
    std::fs::write(word(arguments, 0)?, word(arguments, 1)?)?;
    Ok(0)
}

fn read(arguments: &[String]) -> Outcome {
    let mut bytes = Vec::new();
    std::fs::File::open(word(arguments, 0)?)?.read_to_end(&mut bytes)?;
    std::io::stdout().write_all(&bytes)?;
    Ok(0)
}

fn all(arguments: &[String]) -> Outcome {
    for part in arguments.split(|a| a == ",") {
        match run(part) {
            Ok(0) => {}
            Ok(code) => println!("{}: exit {code}", part.join(" ")),
            Err(error) => println!("{}: {error}", part.join(" ")),
        }
    }
    Ok(0)
}
