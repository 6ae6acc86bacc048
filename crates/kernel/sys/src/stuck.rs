//! Why processes that were told to die don't: what the kernel says of them.

use std::fs;

/// One clause for each process in uninterruptible sleep (state D), to end an error message with; empty when there is
/// none.
#[must_use]
pub fn why(pids: &[u32]) -> String {
    pids.iter().filter_map(|pid| clause(*pid)).collect()
}

fn clause(pid: u32) -> Option<String> {
    let (name, state) = parse_stat(&fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)?;
    if state != 'D' {
        return None;
    }
    // "0" where the kernel doesn't tell.
    let place = fs::read_to_string(format!("/proc/{pid}/wchan")).unwrap_or_default();
    let place = if place.len() > 1 { format!(" in {place}") } else { String::new() };
    Some(format!(
        "; process {pid} ({name}) is in uninterruptible sleep{place}: it can't even be killed until what it waits for \
         (a disk, a network file system) answers"
    ))
}

/// Name and state from /proc/PID/stat (proc(5)); the name may contain anything.
#[must_use]
pub fn parse_stat(stat: &str) -> Option<(String, char)> {
    let (before, after) = stat.rsplit_once(')')?;
    let (_, name) = before.split_once('(')?;
    Some((name.to_owned(), after.trim_start().chars().next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stat_with_a_nasty_name_is_read() {
        assert_eq!(parse_stat("12 (a) D (b) S 3 4"), Some(("a) D (b".to_owned(), 'S')));
        assert_eq!(parse_stat("12 broken"), None);
    }

    #[test]
    fn who_runs_is_not_stuck() {
        assert_eq!(why(&[std::process::id(), u32::MAX]), "");
    }
}
