//! Can this test run here? One that can't is skipped visibly, and the lane that promised to run it fails.
//!
//! libtest has no notion of a test that skips itself, so a skip is a line `SKIP <test>: <reason>` written to the real
//! standard error (which libtest doesn't capture); `cargo xtask test` counts those lines. In a lane that promised the
//! test, the environment variable `CORTEN_LANE` is set and the same situation is a failure.

use std::io::Write;

/// Whether we are root; if not, the test is counted as skipped.
#[must_use = "return from the test when this is false"]
pub fn require_root() -> bool {
    require(nix::unistd::geteuid().is_root(), "needs root")
}

/// Whether `name` is an executable in `PATH`; if not, the test is counted as skipped.
#[must_use = "return from the test when this is false"]
pub fn require_program(name: &str) -> bool {
    require(find_program(name).is_some(), &format!("needs the program {name}"))
}

/// Whether our own binary `name` has been built; if not, the test is counted as skipped.
#[must_use = "return from the test when this is false"]
pub fn require_binary(name: &str) -> bool {
    require(crate::binary(name).is_ok(), &format!("needs the binary {name}: run `cargo xtask build`"))
}

/// Whether `condition` holds; if not, the test is counted as skipped for `reason`.
///
/// # Panics
/// In a lane that promised to run the test.
#[must_use = "return from the test when this is false"]
pub fn require(condition: bool, reason: &str) -> bool {
    if condition {
        return true;
    }
    if let Ok(lane) = std::env::var("CORTEN_LANE") {
        panic!("the lane {lane:?} promised to run this test, but it can't: {reason}");
    }
    skip(reason);
    false
}

/// Counts the running test as skipped, whatever the lane promised: for what this machine's kernel can't do.
pub fn skip(reason: &str) {
    let thread = std::thread::current();
    let line = format!("SKIP {}: {reason}\n", thread.name().unwrap_or("?"));
    std::io::stderr().write_all(line.as_bytes()).ok(); // because there is nobody left to tell
}

/// Whether this kernel lets users other than root make user namespaces; if not, the test is counted as skipped,
/// whatever the lane promised.
#[must_use = "return from the test when this is false"]
pub fn users_may_unshare() -> bool {
    let sysctls = [
        ("kernel/unprivileged_userns_clone", "0"),
        ("kernel/apparmor_restrict_unprivileged_userns", "1"),
        ("user/max_user_namespaces", "0"),
    ];
    let is = |(name, value): &(&str, &str)| {
        std::fs::read_to_string(format!("/proc/sys/{name}")).is_ok_and(|text| text.trim() == *value)
    };
    let forbidden = sysctls.iter().find(|sysctl| is(sysctl));
    if let Some((name, value)) = forbidden {
        skip(&format!("the sysctl {name} is {value}: only root may make user namespaces"));
    }
    forbidden.is_none()
}

/// The path of a program, as a shell would find it (sbin included, which some users' `PATH` lacks).
pub(crate) fn find_program(name: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default() + ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin";
    path.split(':')
        .filter(|dir| !dir.is_empty())
        .map(|dir| std::path::Path::new(dir).join(name))
        .find(|p| p.is_file())
}
