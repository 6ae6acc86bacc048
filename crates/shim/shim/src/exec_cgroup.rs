//! A cgroup for one exec, so that all that it starts can be found and killed, daemons included: whoever leaves its
//! parent and its session doesn't leave its cgroup.
//!
//! In the version 2 hierarchy only (where the machine has one, be it without controllers): a process is born there at
//! no cost, and no limit is touched. It is told to the runtime by `exec --cgroup :<name>`.

use std::cell::Cell;
use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use crate::task::Task;

/// The last pause before we give up; all of them together are less than twice as long.
const PATIENCE: Duration = Duration::from_secs(1);

/// Removed when dropped, unless a daemon has been left in it on purpose: then it goes with the container's.
#[derive(Debug)]
pub(crate) struct ExecCgroup {
    dir: PathBuf,
    name: String,
}

impl ExecCgroup {
    /// None where there's no such hierarchy, or a runtime of which we don't know that it can.
    pub(crate) fn new(task: &Task) -> Option<Self> {
        thread_local!(static NEXT: Cell<u64> = const { Cell::new(0) });
        if task.runtime.binary.file_name().is_none_or(|name| name != "corten") {
            return None;
        }
        let name = format!("exec-{}", NEXT.replace(NEXT.get() + 1));
        let dir = task.cgroup.borrow().as_ref()?.version_2()?.join(&name);
        fs::create_dir(&dir).ok()?; // without one, the process tree is looked through
        Some(Self { dir, name })
    }

    /// As `exec --cgroup` wants it.
    pub(crate) fn option(&self) -> String {
        format!(":{}", self.name)
    }

    /// Kills all that is in it.
    pub(crate) fn kill(&self) {
        if fs::write(self.dir.join("cgroup.kill"), "1").is_err() {
            // Kernels before 5.14.
            crate::cgroup::kill_below(&self.dir);
        }
    }
}

impl ExecCgroup {
    /// Kills until it is empty, for a while: what is in the kernel's hands isn't waited for.
    pub(crate) async fn clear(&self) {
        let mut pause = Duration::from_millis(1);
        self.kill();
        while self.is_populated() && pause < PATIENCE {
            tokio::time::sleep(pause).await;
            pause *= 2;
            self.kill();
        }
    }

    fn is_populated(&self) -> bool {
        fs::read_to_string(self.dir.join("cgroup.events")).is_ok_and(|text| text.contains("populated 1"))
    }
}

impl Drop for ExecCgroup {
    fn drop(&mut self) {
        let _ = fs::remove_dir(&self.dir); // see the type
    }
}
