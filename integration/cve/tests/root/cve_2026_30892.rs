//! CVE-2026-30892: `exec -u` with something that isn't a user ran as root.

use anyhow::{Result, ensure};

use crate::T;

// runc 1.1 and crun 1.8 of Debian 12 take `--user=` for root.
crate::attack!([corten Corten] (a_user_that_cannot_be_read_is_refused));

/// Seen to fail with `user` of `commands/exec.rs` taking 0 for what can't be parsed: "--user= ran as 0".
fn a_user_that_cannot_be_read_is_refused(t: &T<'_>) -> Result<()> {
    let container = t.start(t.sh("sleep 100000"))?;
    let long = "1".repeat(5000);
    // 4294967295 is -1: to setresuid(2) it means "as before", that is root.
    for user in [
        "",
        " ",
        "-1",
        "4294967295",
        "4294967296",
        "18446744073709551616",
        "x",
        "1000:",
        ":1000",
        "1000:x",
        "0x3e8",
        "1000 ",
        &long,
    ] {
        let finished = container.exec(&["--user", user], &["/bin/id", "-u"])?;
        ensure!(finished.stdout != "0\n", "--user={user} ran as 0");
        ensure!(!finished.status.success(), "--user={user} was accepted: {finished:?}");
    }
    container.delete(&["--force"])
}
