//! Which of our descriptors the program inherits: `--preserve-fds` and socket activation (sd_listen_fds(3)).

use std::io;

use crate::{Result, error::Doing};

/// The number of descriptors from 3 on that the program inherits: `preserve` ones, and those of `$LISTEN_FDS`.
///
/// All of them must be open already: what we open ourselves gets the lowest free number, and would be passed on in the
/// place of a missing one, with a way to the host's files (CVE-2024-21626). So this is to be called before anything is
/// opened that stays open, by programs that log to a file too.
///
/// # Errors
/// If one of them isn't open; if there are more than there can be.
pub fn inherited_descriptors(preserve: u32) -> Result<u32> {
    let listen = listen_fds();
    let all = preserve.checked_add(listen);
    let Some((all, end)) = all.and_then(|all| Some((all, 3_i32.checked_add_unsigned(all)?))) else {
        return Err(io::Error::from(io::ErrorKind::InvalidInput))
            .doing(|| format!("pass on {preserve} descriptors and {listen} of $LISTEN_FDS"));
    };
    match (3..end).find(|&number| !corten_sys::fds::is_open(number)) {
        Some(number) => Err(io::Error::from(nix::errno::Errno::EBADF)).doing(|| {
            format!(
                "pass on descriptor {number}: is it open? Asked for are {preserve} after stderr and {listen} of $LISTEN_FDS"
            )
        }),
        None => Ok(all),
    }
}

/// Number of descriptors of socket activation that are ours to pass on (sd_listen_fds(3)).
pub(crate) fn listen_fds() -> u32 {
    let number = |name: &str| std::env::var(name).ok().and_then(|value| value.parse::<u32>().ok());
    match (number("LISTEN_PID"), number("LISTEN_FDS")) {
        (Some(pid), Some(count)) if pid == std::process::id() => count,
        // Without a pid: set by a manager that doesn't know ours.
        (None, Some(count)) => count,
        _ => 0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_open_is_not_passed_on() {
        assert_eq!(inherited_descriptors(0).expect("nothing to pass on"), 0);
        let error = inherited_descriptors(1 << 30).expect_err("nobody has so many");
        assert!(error.to_string().contains("is it open?"), "{error}");
        inherited_descriptors(u32::MAX).expect_err("beyond what a descriptor's number may be");
    }
}
