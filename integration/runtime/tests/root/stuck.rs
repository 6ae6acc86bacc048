//! What the kernel doesn't let die.

use std::fs;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_support::{Disk, Kind, run_with_deadline, wait_for};

use crate::T;

#[test]
fn delete_names_a_process_in_state_d() -> Result<()> {
    T::on(Kind::Corten, "state-d", |t: &T<'_>| {
        let Some(disk) = Disk::new(t.scope)? else { return Ok(()) };
        let bundle = t.sh("while :; do echo x > /data/file; done");
        let container = t.start(bundle.mount("bind", &disk.dir().to_string_lossy(), "/data", &["bind"]))?;
        let pid = container.pid()?;
        disk.freeze()?;
        let is_stuck =
            || fs::read_to_string(format!("/proc/{pid}/stat")).is_ok_and(|stat| stat.contains(") D "));
        wait_for("it to be in state D", is_stuck)?;
        // It gives up after a while, and says why.
        let mut delete = t.rt.command();
        delete.args(["delete", "--force", container.id()]);
        let said = run_with_deadline(&mut delete, Duration::from_secs(100), b"")?.err()?.stderr;
        ensure!(said.contains(&format!("process {pid} (sh) is in uninterruptible sleep")), "{said}");
        // And it works when the disk answers.
        disk.thaw()?;
        container.delete(&["--force"])
    })
}
