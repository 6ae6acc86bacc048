//! Mounts: kinds, options, order, propagation; and that no destination leads out of the root filesystem.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, run};
use serde_json::json;

use crate::{T, has, has_one, lacks};

crate::each_runtime!(
    the_usual_mounts,
    bind_directory,
    bind_read_only,
    bind_file_onto_a_new_file,
    bind_keeps_mounts_below,
    recursive_read_only_reaches_mounts_below,
    tmpfs_options,
    tmpfs_over_a_directory_with_content,
    order_matters,
    a_missing_source_is_named,
    destinations_are_made,
    symlinks_in_destinations_stay_inside,
    dotdot_in_destinations_stays_inside,
    symlinked_proc_is_refused,
    private_mounts_stay_private,
    slave_mounts_come_in,
    shared_mounts_go_out,
    nothing_of_the_host_is_mounted,
    root_propagation,
    root_propagation_of_every_kind,
    masked_directories_share_one_file_system,
    mqueue_and_shm_work,
    cgroup2_is_version_2_also_on_a_hybrid_machine,
    cgroup_mount_shows_only_its_own,
);

/// The line of a mount in the container's mountinfo.
pub(crate) fn line<'t>(mountinfo: &'t str, target: &str) -> Result<&'t str> {
    let mut lines = mountinfo.lines().rev();
    lines
        .find(|l| l.split(' ').nth(4) == Some(target))
        .with_context(|| format!("{target} isn't mounted in:\n{mountinfo}"))
}

/// The per-mount options of a line.
pub(crate) fn options(line: &str) -> Vec<&str> {
    line.split(' ').nth(5).unwrap_or_default().split(',').collect()
}

fn the_usual_mounts(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&["mounts"]))?;
    for (target, kind) in [
        ("/proc", "proc"),
        ("/dev", "tmpfs"),
        ("/dev/pts", "devpts"),
        ("/dev/mqueue", "mqueue"),
        ("/sys", "sysfs"),
    ] {
        has(line(&out, target)?, &format!(" - {kind} "))?;
    }
    for (target, wanted) in
        [("/proc", &["nosuid", "nodev", "noexec"][..]), ("/sys", &["ro", "nosuid"]), ("/dev", &["nosuid"])]
    {
        let line = line(&out, target)?;
        ensure!(wanted.iter().all(|o| options(line).contains(o)), "{wanted:?} in {line}");
    }
    has(line(&out, "/dev/shm")?, "size=65536k")
}

fn bind_directory(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    fs::write(source.join("in"), "from the host")?;
    let bundle = t.sh("cat /data/in; echo back > /data/out");
    let out = t.out(bundle.mount("bind", &source.to_string_lossy(), "/data", &["rbind", "rw"]))?;
    ensure!(out == "from the host", "{out}");
    ensure!(fs::read_to_string(source.join("out"))? == "back\n");
    Ok(())
}

fn bind_read_only(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    let bundle = t.sh("echo x > /data/out; grep ' /data ' /proc/self/mountinfo");
    let options = ["bind", "ro", "nosuid", "nodev", "noexec"];
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/data", &options);
    let finished = t.rt.run(&bundle.write()?)?;
    has(&finished.stderr, "Read-only file system")?;
    for option in ["ro", "nosuid", "nodev", "noexec"] {
        has(&finished.stdout, option)?;
    }
    ensure!(!source.join("out").exists());
    Ok(())
}

fn bind_file_onto_a_new_file(t: &T<'_>) -> Result<()> {
    let source = t.scope.path("file");
    fs::write(&source, "content")?;
    let bundle = t.workload(&["read", "/new/place/file"]);
    let out = t.out(bundle.mount("bind", &source.to_string_lossy(), "/new/place/file", &["bind", "ro"]))?;
    ensure!(out == "content", "{out}");
    Ok(())
}

pub(crate) fn mount_tmpfs(dir: &std::path::Path) -> Result<()> {
    run(Command::new("mount").args(["-t", "tmpfs", "t1-test"]).arg(dir))?.ok().map(drop)
}

pub(crate) fn umount(dir: &std::path::Path) -> Result<()> {
    run(Command::new("umount").arg(dir))?.ok().map(drop)
}

fn bind_keeps_mounts_below(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source/below")?;
    mount_tmpfs(&source)?;
    fs::write(source.join("deep"), "deep")?;
    let above = t.scope.path("source");
    let shown = t.out(t.sh("ls /data/below").mount("bind", &above.to_string_lossy(), "/data", &["rbind"]));
    let plain = Bundle::sh(t.scope, "plain", "ls /data/below");
    let hidden = t.out(plain.mount("bind", &above.to_string_lossy(), "/data", &["bind"]));
    umount(&source)?;
    ensure!(shown? == "deep\n");
    ensure!(hidden?.is_empty());
    Ok(())
}

fn recursive_read_only_reaches_mounts_below(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8.1's rro needs more than its package has") {
        return Ok(());
    }
    let source = t.scope.make_dir("source/below")?;
    mount_tmpfs(&source)?;
    let above = t.scope.path("source");
    let bundle = t.sh("echo x > /data/below/file; true").mount(
        "bind",
        &above.to_string_lossy(),
        "/data",
        &["rbind", "rro"],
    );
    let finished = t.rt.run(&bundle.write()?)?;
    umount(&source)?;
    has(&finished.stderr, "Read-only file system")
}

fn tmpfs_options(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["all", "mounts", ",", "stat", "/scratch"]);
    let options = ["nosuid", "noexec", "nodev", "size=1024k", "mode=1700"];
    let out = t.out(bundle.mount("tmpfs", "scratch", "/scratch", &options))?;
    let shown = line(&out, "/scratch")?;
    has(shown, "size=1024k")?;
    has(shown, "noexec")?;
    has(&out, "/scratch: dir 1700 0:0")
}

fn tmpfs_over_a_directory_with_content(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["all", "ls", "/etc", ",", "stat", "/etc"]).mount(
        "tmpfs",
        "tmpfs",
        "/etc",
        &["mode=755"],
    );
    let out = t.out(bundle)?;
    ensure!(out.starts_with('\n'), "{out:?}");
    Ok(())
}

fn order_matters(t: &T<'_>) -> Result<()> {
    let inner = t.scope.make_dir("inner")?;
    fs::write(inner.join("file"), "inner")?;
    let bundle = t.workload(&["read", "/outer/inner/file"]).mount("tmpfs", "tmpfs", "/outer", &[]);
    let out = t.out(bundle.mount("bind", &inner.to_string_lossy(), "/outer/inner", &["bind"]))?;
    ensure!(out == "inner", "{out}");
    Ok(())
}

fn a_missing_source_is_named(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).mount("bind", "/nothing/here", "/data", &["bind"]);
    let said = t.refused(bundle)?;
    has(&said, "/nothing/here")?;
    has_one(&said, &["no such file or directory", "No such file or directory"])
}

fn destinations_are_made(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    let bundle = t.workload(&["stat", "/a/b/c"]);
    let out = t.out(bundle.mount("bind", &source.to_string_lossy(), "/a/b/c", &["bind"]))?;
    has(&out, "/a/b/c: dir 0755")
}

/// CVE-2021-30465 and its kind: a link in the image mustn't redirect a mount to the host.
fn symlinks_in_destinations_stay_inside(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    fs::write(source.join("file"), "mounted")?;
    let outside = t.scope.make_dir("outside")?;
    let bundle = t.workload(&["read", "/link/data/file"]);
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/link/data", &["bind"]).write()?;
    symlink(&outside, bundle.rootfs().join("link"))?;
    let finished = t.rt.run(&bundle)?;
    ensure!(fs::read_dir(&outside)?.next().is_none(), "the runtime wrote outside of the rootfs");
    // The link's target doesn't exist in the rootfs: to make it there is fine, and so is to refuse.
    ensure!(finished.stdout == "mounted" || !finished.status.success(), "{finished:?}");
    Ok(())
}

fn dotdot_in_destinations_stays_inside(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    let name = format!("{}-escape", t.scope.prefix());
    let destination = format!("/../../../../../../../tmp/{name}");
    let bundle = t.workload(&["stat", &format!("/tmp/{name}")]);
    let bundle = bundle.mount("bind", &source.to_string_lossy(), &destination, &["bind"]).write()?;
    let finished = t.rt.run(&bundle)?;
    ensure!(!std::path::Path::new("/tmp").join(&name).exists(), "the runtime wrote outside of the rootfs");
    ensure!(!finished.status.success() || finished.stdout.contains("dir"), "{finished:?}");
    Ok(())
}

/// CVE-2019-19921: /proc as a link would put procfs, and what is masked in it, somewhere else.
fn symlinked_proc_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).write()?;
    fs::remove_dir(bundle.rootfs().join("proc"))?;
    symlink("/tmp", bundle.rootfs().join("proc"))?;
    let finished = t.rt.run(&bundle)?;
    if t.differs(integration_support::Kind::Crun, "crun follows the link inside of the rootfs") {
        return Ok(());
    }
    finished.err().map(drop)
}

/// Runs a container with a mount of `propagation` while a mount is made in its source; yields what it sees of it.
fn propagation(t: &T<'_>, propagation: &str) -> Result<String> {
    let source = t.scope.make_dir("source")?;
    mount_tmpfs(&source)?;
    run(Command::new("mount").arg("--make-shared").arg(&source))?.ok()?;
    let below = t.scope.make_dir("source/below")?;
    let bundle =
        t.sh("sleep 1000").mount("bind", &source.to_string_lossy(), "/data", &["rbind", propagation]);
    let outcome = (|| {
        let container = t.start(bundle)?;
        mount_tmpfs(&below)?;
        fs::write(below.join("seen"), "")?;
        let seen = container.exec(&[], &["/bin/ls", "/data/below"])?.ok()?.stdout;
        container.delete(&["--force"])?;
        Ok(seen)
    })();
    umount(&below).ok();
    umount(&source)?;
    outcome
}

fn private_mounts_stay_private(t: &T<'_>) -> Result<()> {
    ensure!(propagation(t, "rprivate")?.is_empty());
    Ok(())
}

fn slave_mounts_come_in(t: &T<'_>) -> Result<()> {
    if t.differs(integration_support::Kind::Crun, "crun 1.8 makes its whole tree private first") {
        return Ok(());
    }
    ensure!(propagation(t, "rslave")? == "seen\n");
    Ok(())
}

fn shared_mounts_go_out(t: &T<'_>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    mount_tmpfs(&source)?;
    run(Command::new("mount").arg("--make-shared").arg(&source))?.ok()?;
    let below = t.scope.make_dir("source/below")?;
    let bundle = t.sh("mount -t tmpfs out /data/below && touch /data/below/made-inside && sleep 1000");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/data", &["rbind", "rshared"]);
    // Without this the root, and what is mounted from it, only ever receives: engines set it for `rshared` mounts.
    let bundle = bundle.set("/linux/rootfsPropagation", json!("rshared"));
    let capabilities = ["CAP_SYS_ADMIN"];
    let bundle = bundle.without("/linux/seccomp").set(
        "/process/capabilities",
        json!({"bounding": capabilities, "effective": capabilities, "permitted": capabilities}),
    );
    let outcome = (|| {
        let container = t.start(bundle)?;
        integration_support::wait_for("the mount to come out", || below.join("made-inside").exists())?;
        container.delete(&["--force"])
    })();
    umount(&below).ok();
    umount(&source)?;
    outcome
}

fn nothing_of_the_host_is_mounted(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["mounts"]);
    let own = bundle.dir().to_string_lossy().into_owned();
    let out = t.out(bundle)?;
    let allowed = ["/", "/proc", "/dev", "/sys"];
    for line in out.lines() {
        let target = line.split(' ').nth(4).unwrap_or_default();
        let fine =
            allowed.iter().any(|a| target == *a || (*a != "/" && target.starts_with(&format!("{a}/"))));
        ensure!(fine, "{target} is mounted, of {own}:\n{out}");
    }
    lacks(&out, "old_root")
}

fn root_propagation(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["mounts"]).set("/linux/rootfsPropagation", json!("rslave"));
    let out = t.out(bundle)?;
    line(&out, "/proc").map(drop)
}

fn root_propagation_of_every_kind(t: &T<'_>) -> Result<()> {
    // (The optional fields of the root's line in mountinfo.)
    for (kind, tag) in [("private", ""), ("shared", "shared:"), ("unbindable", "unbindable")] {
        if t.differs(integration_support::Kind::Runc, "runc 1.1 leaves a shared root private")
            || t.differs(integration_support::Kind::Crun, "crun 1.8 as well")
        {
            return Ok(());
        }
        let bundle = Bundle::workload(t.scope, kind, &["mounts"]);
        let out = t.out(bundle.set("/linux/rootfsPropagation", json!(kind)))?;
        let root = line(&out, "/")?;
        let (left, _) = root.split_once(" - ").context("no separator")?;
        let optional: Vec<_> = left.split(' ').skip(6).collect();
        match tag {
            "" => ensure!(optional.is_empty(), "{kind}: {root}"),
            tag => ensure!(optional.iter().any(|field| field.starts_with(tag)), "{kind}: {root}"),
        }
    }
    Ok(())
}

/// A file system each would cost a machine with many CPUs hundreds of them.
fn masked_directories_share_one_file_system(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("one file system for all masks") {
        return Ok(());
    }
    let bundle = t.workload(&["all", "mounts", ",", "ls", "/etc", ",", "mkdir", "/usr/bin/x"]);
    let out = t.out(bundle.set("/linux/maskedPaths", json!(["/etc", "/usr/bin", "/etc/none"])))?;
    let device = |target| Ok::<_, anyhow::Error>(line(&out, target)?.split(' ').nth(2).unwrap_or_default());
    ensure!(device("/etc")? == device("/usr/bin")?, "{out}");
    has(&out, "mkdir: EROFS")
}

fn cgroup2_is_version_2_also_on_a_hybrid_machine(t: &T<'_>) -> Result<()> {
    let hybrid = std::path::Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists();
    if !hybrid && !std::path::Path::new("/sys/fs/cgroup/cgroup.procs").exists() {
        integration_support::skip("this machine has no cgroup v2");
        return Ok(());
    }
    let bundle = t.workload(&["all", "mounts", ",", "ls", "/two"]);
    let out = t.out(bundle.mount("cgroup2", "cgroup2", "/two", &["nosuid", "noexec", "nodev", "ro"]))?;
    has(line(&out, "/two")?, " - cgroup2 ")?;
    has(&out, "cgroup.procs")
}

fn mqueue_and_shm_work(t: &T<'_>) -> Result<()> {
    let out = t.out(t.workload(&[
        "all",
        "write",
        "/dev/shm/x",
        "shm",
        ",",
        "read",
        "/dev/shm/x",
        ",",
        "ls",
        "/dev/mqueue",
    ]))?;
    ensure!(out == "shm\n", "{out:?}");
    Ok(())
}

fn cgroup_mount_shows_only_its_own(t: &T<'_>) -> Result<()> {
    if !std::path::Path::new("/sys/fs/cgroup/memory").exists() {
        integration_support::skip("this machine has no cgroup v1 hierarchies");
        return Ok(());
    }
    let out = t.out(t.sh("cat /sys/fs/cgroup/memory/memory.limit_in_bytes; touch /sys/fs/cgroup/memory/x 2>&1; cat /proc/self/cgroup"))?;
    has(&out, "268435456\n")?;
    has(&out, "Read-only file system")?;
    // In a cgroup namespace of its own the container is at the root.
    has(&out, ":memory:/\n")
}
