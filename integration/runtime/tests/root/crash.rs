//! A runtime that is killed in the middle: what it left can be deleted, and a retry works.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Result, ensure};
use integration_support::{Kind, run};

use crate::T;

crate::each_runtime!(create_killed_at_any_time, concurrent_deletes);
crate::each_runtime!(@one corten_alone Corten another_containers_cgroup_is_left_alone);

fn create_killed_at_any_time(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 leaves a cgroup if it is killed early")
        || t.differs(Kind::Runc, "runc 1.1 leaves a container that delete doesn't find if it is killed early")
    {
        return Ok(());
    }
    let bundle = t.workload(&["sleep"]).write()?;
    for step in 0..24_u64 {
        let mut command = t.rt.command();
        command.arg("create").arg("--bundle").arg(bundle.dir()).arg(bundle.id());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        // Not a wait for something: the moments at which it is killed are what is tested.
        std::thread::sleep(Duration::from_micros(step * 500));
        child.kill()?;
        child.wait()?;
        run(t.rt.command().args(["delete", "--force", bundle.id()]))?.ok()?;
        let left = integration_support::wait_for("init to be gone", || {
            !integration_support::leaks(t.scope)
                .iter()
                .any(|l| l.starts_with("process") || l.starts_with("cgroup"))
        });
        ensure!(
            left.is_ok(),
            "killed after {} us: left {:?}",
            step * 500,
            integration_support::leaks(t.scope)
        );
    }
    let container = t.rt.start(&bundle)?;
    ensure!(container.status()? == "running");
    container.delete(&["--force"])
}

fn concurrent_deletes(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    std::thread::scope(|threads| {
        let deletes: Vec<_> =
            (0..4).map(|_| threads.spawn(|| container.call(&["delete", "--force"]))).collect();
        for delete in deletes {
            // Which of them wins is open; none may hang.
            delete.join().map_err(|_| anyhow::anyhow!("a thread panicked"))??;
        }
        Ok::<_, anyhow::Error>(())
    })?;
    run(t.rt.command().args(["delete", "--force", container.id()]))?.ok().map(drop)
}

/// A `create` that was killed before it was told that the cgroup is another container's has noted it already.
fn another_containers_cgroup_is_left_alone(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let home = t.rt.root().join("killed-early");
    std::fs::create_dir(&home)?;
    std::os::unix::fs::symlink(t.scope.cgroup("c"), home.join("cgroup"))?;
    let deleted = run(t.rt.command().args(["delete", "--force", "killed-early"]))?.ok()?;
    crate::has(&deleted.stderr, container.id())?;
    ensure!(container.status()? == "running" && !home.exists());
    container.delete(&["--force"])
}
