//! Killing a process with all that it has started.
//!
//! What belongs to it: whoever has a member as parent, or is in a session that a member leads. That catches children
//! whose parent has ended, and daemons that have left by setsid as long as their parent lives.

use std::collections::HashSet;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Rounds in which processes may be forked faster than we look.
const ROUNDS: usize = 16;

/// Kills `roots` and their descendants. They're stopped first, so that none can fork while we look for its children.
pub(crate) fn kill_tree(roots: &[u32]) {
    let mut members: HashSet<u32> = roots.iter().copied().collect();
    signal(&members, Signal::SIGSTOP);
    for _ in 0..ROUNDS {
        let found = grow(&mut members);
        if found.is_empty() {
            break;
        }
        signal(&found, Signal::SIGSTOP);
    }
    signal(&members, Signal::SIGKILL);
}

fn signal(pids: &HashSet<u32>, signal: Signal) {
    for pid in pids {
        let _ = kill(Pid::from_raw(pid.cast_signed()), signal); // it may have ended meanwhile
    }
}

/// Adds to `members` who belongs to them; returns those.
fn grow(members: &mut HashSet<u32>) -> HashSet<u32> {
    let all = processes();
    let mut found = HashSet::new();
    loop {
        let before = found.len();
        for &(pid, parent, session) in &all {
            if !members.contains(&pid) && (members.contains(&parent) || members.contains(&session)) {
                members.insert(pid);
                found.insert(pid);
            }
        }
        if found.len() == before {
            return found;
        }
    }
}

/// pid, parent, session of all processes
fn processes() -> Vec<(u32, u32, u32)> {
    let Ok(entries) = std::fs::read_dir("/proc") else { return Vec::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let (parent, session) = parse_stat(&std::fs::read_to_string(entry.path().join("stat")).ok()?)?;
            Some((pid, parent, session))
        })
        .collect()
}

/// Parent and session from /proc/<pid>/stat; the name in it may contain anything, so look from its end.
pub(crate) fn parse_stat(stat: &str) -> Option<(u32, u32)> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_whitespace().skip(1);
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    Some((parent, session))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name_is_read() {
        assert_eq!(parse_stat("12 (a) b) S 3 4 5 0 -1"), Some((3, 5)));
        assert_eq!(parse_stat("12 broken"), None);
    }

    #[test]
    fn grandchildren_are_killed_too() {
        use std::io::{BufRead, BufReader};
        let mut child = std::process::Command::new("sh")
            .args(["-c", "setsid sh -c 'sleep 1000 & echo $!; wait' & wait"])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let grandchild: u32 = line.trim().parse().unwrap();
        kill_tree(&[child.id()]);
        child.wait().unwrap();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
        let ended = || {
            std::fs::read_to_string(format!("/proc/{grandchild}/stat")).map_or(true, |s| s.contains(") Z "))
        };
        while !ended() {
            assert!(std::time::Instant::now() < deadline, "the grandchild still runs");
            std::thread::yield_now();
        }
    }
}
