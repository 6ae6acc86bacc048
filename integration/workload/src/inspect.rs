//! Commands that print what a process can see of itself.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit};
use nix::sys::stat::{Mode, umask};

use crate::{Outcome, word};

pub(crate) fn env(_: &[String]) -> Outcome {
    for (name, value) in std::env::vars_os() {
        println!("{}={}", name.to_string_lossy(), value.to_string_lossy());
    }
    Ok(0)
}

pub(crate) fn id(_: &[String]) -> Outcome {
    let mask = umask(Mode::empty());
    umask(mask);
    let mut groups: Vec<_> = nix::unistd::getgroups()?.iter().map(|g| g.as_raw()).collect();
    groups.sort_unstable();
    println!("uid: {}\ngid: {}", nix::unistd::getuid(), nix::unistd::getgid());
    println!("groups: {groups:?}\numask: {:04o}", mask.bits());
    Ok(0)
}

pub(crate) fn pwd(_: &[String]) -> Outcome {
    println!("{}", std::env::current_dir()?.display());
    Ok(0)
}

pub(crate) fn caps(_: &[String]) -> Outcome {
    for line in fs::read_to_string("/proc/self/status")?.lines() {
        if ["Cap", "NoNewPrivs", "Seccomp"].iter().any(|p| line.starts_with(p)) {
            println!("{}", line.replace('\t', " "));
        }
    }
    println!("oom_score_adj: {}", fs::read_to_string("/proc/self/oom_score_adj")?.trim());
    Ok(0)
}

pub(crate) fn limits(arguments: &[String]) -> Outcome {
    for name in arguments {
        let resource = match name.as_str() {
            "RLIMIT_NOFILE" => Resource::RLIMIT_NOFILE,
            "RLIMIT_CORE" => Resource::RLIMIT_CORE,
            "RLIMIT_NPROC" => Resource::RLIMIT_NPROC,
            "RLIMIT_FSIZE" => Resource::RLIMIT_FSIZE,
            "RLIMIT_STACK" => Resource::RLIMIT_STACK,
            other => return Err(format!("unknown limit {other}").into()),
        };
        let (soft, hard) = getrlimit(resource)?;
        println!("{name}: {soft} {hard}");
    }
    Ok(0)
}

pub(crate) fn mounts(_: &[String]) -> Outcome {
    print!("{}", fs::read_to_string("/proc/self/mountinfo")?);
    Ok(0)
}

pub(crate) fn fds(_: &[String]) -> Outcome {
    let mut found = Vec::new();
    for entry in fs::read_dir("/proc/self/fd")?.flatten() {
        let target = fs::read_link(entry.path()).unwrap_or_default();
        // Our own view of the directory isn't something that we were given.
        if !target.ends_with("fd") {
            found.push((entry.file_name().to_string_lossy().parse::<i32>()?, target));
        }
    }
    found.sort();
    for (fd, target) in found {
        println!("fd {fd}: {}", target.display());
    }
    Ok(0)
}

pub(crate) fn namespaces(_: &[String]) -> Outcome {
    for name in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        println!("{}", fs::read_link(format!("/proc/self/ns/{name}"))?.display());
    }
    Ok(0)
}

pub(crate) fn cgroup(_: &[String]) -> Outcome {
    print!("{}", fs::read_to_string("/proc/self/cgroup")?);
    Ok(0)
}

pub(crate) fn hostname(_: &[String]) -> Outcome {
    let names = nix::sys::utsname::uname()?;
    println!("hostname: {}", names.nodename().to_string_lossy());
    println!("domainname: {}", names.domainname().to_string_lossy());
    Ok(0)
}

pub(crate) fn tty(_: &[String]) -> Outcome {
    use std::io::IsTerminal;
    println!("stdin: {}", std::io::stdin().is_terminal());
    println!("stdout: {}", std::io::stdout().is_terminal());
    println!("stderr: {}", std::io::stderr().is_terminal());
    println!("name: {}", fs::read_link("/proc/self/fd/0")?.display());
    Ok(0)
}

pub(crate) fn stat(arguments: &[String]) -> Outcome {
    for path in arguments {
        match fs::symlink_metadata(path) {
            Err(error) => println!("{path}: {error}"),
            Ok(m) => {
                let kind = match m.mode() & 0o170_000 {
                    0o020_000 => "char",
                    0o060_000 => "block",
                    0o040_000 => "dir",
                    0o100_000 => "file",
                    0o120_000 => "symlink",
                    0o010_000 => "fifo",
                    0o140_000 => "socket",
                    _ => "other",
                };
                let device = (nix::sys::stat::major(m.rdev()), nix::sys::stat::minor(m.rdev()));
                let (mode, uid, gid) = (m.mode() & 0o7777, m.uid(), m.gid());
                println!("{path}: {kind} {mode:04o} {uid}:{gid} {}:{}", device.0, device.1);
            }
        }
    }
    Ok(0)
}

pub(crate) fn ls(arguments: &[String]) -> Outcome {
    let entries = fs::read_dir(word(arguments, 0)?)?.flatten();
    let mut names: Vec<_> = entries.map(|e| e.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    println!("{}", names.join(" "));
    Ok(0)
}
