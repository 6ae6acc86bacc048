//! checkpoint and restore, with Debian's criu: where it can work, and what becomes of the container where it can't.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context as _, Result, ensure};
use integration_support::{
    Bundle, ConsoleSocket, DEADLINE, Finished, require_program, run, run_with_deadline, wait_for,
};
use serde_json::{Value, json};

use crate::{T, has, has_one};

crate::each_runtime!(@one corten Corten
    a_failure_leaves_the_container_running there_and_back what_is_shared_within_the_rootfs the_exit_code_of_a_restored_one pre_dump_and_parent
    left_running a_terminal_comes_back a_joined_network_is_left_alone wrong_options_are_refused without_criu the_configuration_file_of_an_annotation
);
crate::each_runtime!(@one runc Runc there_and_back);

/// Counts in a file, a line for each number, which is how one sees that it goes on where it was.
pub(crate) const COUNT: &str = "i=0; while :; do i=$((i+1)); echo $i >> /tmp/count; sleep 0.05; done";

/// What criu says of this machine; `None` without criu, which is a skip.
fn criu_works() -> Result<Option<Result<(), String>>> {
    if !require_program("criu") {
        return Ok(None);
    }
    let check = run(std::process::Command::new("criu").arg("check"))?;
    Ok(Some(if check.status.success() { Ok(()) } else { Err(check.stderr) }))
}

/// Whether this is a machine on which criu works; if not it's a skip.
pub(crate) fn works() -> Result<bool> {
    let works = matches!(criu_works()?, Some(Ok(())));
    if !works {
        integration_support::skip("criu doesn't work on this kernel (`criu check`)");
    }
    Ok(works)
}

/// A container in the background without anything of the test's: criu can't save files from outside.
pub(crate) struct Counter<'a> {
    t: &'a T<'a>,
    pub(crate) bundle: Bundle,
    log: PathBuf,
}

impl<'a> Counter<'a> {
    pub(crate) fn start(t: &'a T<'a>, bundle: Bundle) -> Result<Self> {
        let counter = Self { t, bundle: bundle.write()?, log: t.scope.path("log") };
        counter.detached(&["run"])?;
        wait_for("the first count", || counter.count().is_ok())?;
        Ok(counter)
    }

    /// The same container by another name, for a restore while the first is still there.
    pub(crate) fn again(other: &Self, name: &str) -> Result<Self> {
        let bundle = Bundle::busybox(other.t.scope, name, &[]).edit(|config| {
            *config = other.bundle.config().clone();
            config["root"]["path"] = json!(other.bundle.rootfs());
            config["linux"]["cgroupsPath"] = json!(other.t.scope.cgroup(name));
        });
        fs::create_dir_all(bundle.rootfs())?;
        Ok(Self { t: other.t, bundle: bundle.write()?, log: other.log.clone() })
    }

    pub(crate) fn call(&self, arguments: &[&str]) -> Result<Finished> {
        let mut command = self.t.rt.command();
        command.args(arguments).arg(self.bundle.id());
        run_with_deadline(&mut command, DEADLINE * 3, b"")
    }

    /// `run` or `restore`, detached, with nothing for stdio.
    pub(crate) fn detached(&self, arguments: &[&str]) -> Result<()> {
        let mut command = self.t.rt.command();
        command.arg("--log").arg(&self.log).args(arguments);
        command.arg("--detach").arg("--bundle").arg(self.bundle.dir()).arg(self.bundle.id());
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        wait_for("it to be started", || child.try_wait().is_ok_and(|s| s.is_some()))?;
        ensure!(child.wait()?.success(), "{}", fs::read_to_string(&self.log)?);
        Ok(())
    }

    pub(crate) fn count(&self) -> Result<u64> {
        let text = fs::read_to_string(self.bundle.rootfs().join("tmp/count"))?;
        let whole = text.split_inclusive('\n').rfind(|line| line.ends_with('\n')).context("a line")?;
        whole.trim().parse().context("a number")
    }

    /// Waits until it has counted on.
    pub(crate) fn counts_on(&self) -> Result<()> {
        let before = self.count()?;
        wait_for("it to count on", || self.count().is_ok_and(|now| now > before))
    }

    pub(crate) fn status(&self) -> Result<String> {
        let state: Value = serde_json::from_str(&self.call(&["state"])?.ok()?.stdout)?;
        Ok(state["status"].as_str().unwrap_or_default().to_owned())
    }

    pub(crate) fn delete(&self) -> Result<()> {
        self.call(&["delete", "--force"])?.ok().map(drop)
    }
}

fn a_failure_leaves_the_container_running(t: &T<'_>) -> Result<()> {
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    let Some(works) = criu_works()? else { return counter.delete() };
    let refused = match &works {
        Err(_) => counter.call(&["checkpoint", "--image-path", &images])?,
        // Where criu works it fails for want of a page server.
        Ok(()) => counter.call(&["checkpoint", "--image-path", &images, "--page-server", "127.0.0.1:1"])?,
    };
    let said = refused.err()?.stderr;
    has(&said, &format!("cannot checkpoint container {}", counter.bundle.id()))?;
    // What criu itself says is wrong, and where to read more.
    has(&said, &format!("(its log: {images}/dump.log)"))?;
    if let Err(check) = works {
        let error = check.lines().find_map(|line| line.split_once("Error (")?.1.split_once("): "));
        let (_, error) = error.context("an error of criu's")?;
        has(&said, error.trim())?;
    }
    ensure!(counter.status()? == "running");
    counter.counts_on()?;
    // A container that was paused stays so, others don't become so.
    counter.call(&["pause"])?.ok()?;
    counter.call(&["checkpoint", "--image-path", &images, "--page-server", "127.0.0.1:1"])?.err()?;
    ensure!(counter.status()? == "paused");
    counter.call(&["resume"])?.ok()?;
    counter.counts_on()?;
    counter.delete()
}

fn there_and_back(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let data = t.scope.make_dir("data")?;
    fs::write(data.join("file"), "outside")?;
    let bundle = t.sh(COUNT).mount("bind", &data.to_string_lossy(), "/data", &["rbind"]);
    let counter = Counter::start(t, bundle)?;
    let (images, work) = (t.scope.path("images"), t.scope.path("work"));
    let (images, work) = (images.to_string_lossy(), work.to_string_lossy());
    counter.call(&["checkpoint", "--image-path", &images, "--work-path", &work])?.ok()?;
    ensure!(t.scope.path("work/dump.log").exists() && t.scope.path("images/descriptors.json").exists());
    has_one(&counter.call(&["state"])?.err()?.stderr, &["does not exist"])?;
    let stood = counter.count()?;
    let pid_file = t.scope.path("pid");
    counter.detached(&[
        "restore",
        "--image-path",
        &images,
        "--work-path",
        &work,
        "--pid-file",
        &pid_file.to_string_lossy(),
    ])?;
    ensure!(counter.status()? == "running");
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    let state: Value = serde_json::from_str(&counter.call(&["state"])?.ok()?.stdout)?;
    ensure!(state["pid"].as_i64() == Some(fs::read_to_string(&pid_file)?.trim().parse()?), "{state}");
    let mut exec = t.rt.command();
    exec.args(["exec", counter.bundle.id(), "/bin/sh", "-c", "cat /data/file; ls /sys/firmware | wc -l"]);
    ensure!(run(&mut exec)?.ok()?.stdout == "outside0\n", "the bind mount and the mask");
    counter.delete()
}

/// Also when it is a link by then, which leads nowhere else than create would have gone.
fn what_is_shared_within_the_rootfs(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let outside = t.scope.make_dir("outside")?;
    fs::write(outside.join("file"), "outside")?;
    let bundle = t.sh(COUNT);
    let source = bundle.rootfs().join("var/shared");
    let single = bundle.rootfs().join("etc/group");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/data", &["rbind"]);
    let bundle = bundle.mount("bind", &single.to_string_lossy(), "/groups", &["bind"]).write()?;
    fs::create_dir(&source)?;
    fs::write(source.join("file"), "inside")?;
    let counter = Counter::start(t, bundle)?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--image-path", &images.to_string_lossy()])?.ok()?;
    let stood = counter.count()?;
    let there = counter.bundle.rootfs().join(outside.strip_prefix("/")?);
    fs::create_dir_all(there.parent().context("a parent")?)?;
    fs::rename(&source, &there)?;
    std::os::unix::fs::symlink(&outside, &source)?;
    counter.detached(&["restore", "--image-path", &images.to_string_lossy()])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    let mut exec = t.rt.command();
    exec.args(["exec", counter.bundle.id(), "/bin/sh", "-c", "cat /data/file; grep -c root /groups"]);
    ensure!(run(&mut exec)?.ok()?.stdout == "inside1\n");
    counter.delete()
}

fn the_exit_code_of_a_restored_one(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let script = "echo 1 > /tmp/count; while [ ! -e /tmp/stop ]; do sleep 0.05; done; exit 7";
    let counter = Counter::start(t, t.sh(script))?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--image-path", &images.to_string_lossy()])?.ok()?;
    fs::write(counter.bundle.rootfs().join("tmp/stop"), "")?;
    let bundle = counter.bundle.dir().to_string_lossy();
    let back = counter.call(&["restore", "--image-path", &images.to_string_lossy(), "--bundle", &bundle])?;
    ensure!(back.code() == 7, "{back:?}");
    has_one(&counter.call(&["state"])?.err()?.stderr, &["does not exist"])
}

fn pre_dump_and_parent(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = Counter::start(t, t.sh(COUNT))?;
    let (before, images) = (t.scope.path("before"), t.scope.path("images"));
    let pre = counter.call(&["checkpoint", "--pre-dump", "--image-path", &before.to_string_lossy()])?;
    if pre.stderr.contains("criu says that this kernel can't do it") {
        integration_support::skip("this kernel can't track memory for criu");
        return counter.delete();
    }
    pre.ok()?;
    ensure!(counter.status()? == "running");
    counter.counts_on()?;
    let images = images.to_string_lossy();
    counter.call(&["checkpoint", "--image-path", &images, "--parent-path", "../before"])?.ok()?;
    ensure!(t.scope.path("images/parent").symlink_metadata()?.is_symlink());
    let stood = counter.count()?;
    counter.detached(&["restore", "--image-path", &images])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    counter.delete()
}

fn left_running(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--leave-running", "--image-path", &images.to_string_lossy()])?.ok()?;
    ensure!(counter.status()? == "running" && images.join("inventory.img").exists());
    counter.counts_on()?;
    counter.delete()
}

fn a_terminal_comes_back(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let socket = ConsoleSocket::bind(t.scope.path("tty.sock"))?;
    let socket_path = socket.path().to_string_lossy().into_owned();
    let script = "echo 1 >> /tmp/count; while read line; do echo got $line; done";
    let counter = Counter { t, bundle: t.sh(script).terminal().write()?, log: t.scope.path("log") };
    counter.detached(&["run", "--console-socket", &socket_path])?;
    let mut console = socket.receive()?;
    console.send("before\n")?;
    console.expect("got before")?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--image-path", &images.to_string_lossy()])?.ok()?;
    drop(console);
    let images = images.to_string_lossy();
    counter.detached(&["restore", "--image-path", &images, "--console-socket", &socket_path])?;
    let mut console = socket.receive()?;
    console.send("after\n")?;
    console.expect("got after")?;
    drop(console);
    counter.delete()
}

fn a_joined_network_is_left_alone(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let pod = t.start(Bundle::workload(t.scope, "pod", &["sleep"]))?;
    let network = format!("/proc/{}/ns/net", pod.pid()?);
    let counter = Counter::start(t, t.sh(COUNT).namespace("network", Some(Path::new(&network))))?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--image-path", &images.to_string_lossy()])?.ok()?;
    let stood = counter.count()?;
    counter.detached(&["restore", "--image-path", &images.to_string_lossy()])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    let state: Value = serde_json::from_str(&counter.call(&["state"])?.ok()?.stdout)?;
    ensure!(fs::read_link(&network)? == fs::read_link(format!("/proc/{}/ns/net", state["pid"]))?);
    counter.delete()?;
    pod.delete(&["--force"])
}

fn wrong_options_are_refused(t: &T<'_>) -> Result<()> {
    let created = t.rt.create(&t.workload(&["sleep"]).write()?, &[])?;
    has(&created.call(&["checkpoint"])?.err()?.stderr, "cannot be checkpointed in created state")?;
    created.start()?;
    let images = t.scope.make_dir("images")?;
    let images = images.to_string_lossy();
    for (options, said) in [
        (&["--manage-cgroups-mode", "bogus"][..], "must be soft, full, strict or ignore"),
        (&["--empty-ns", "pid"], "is not supported"),
        (&["--page-server", "nowhere"], "must be ADDRESS:PORT"),
        (&["--parent-path", "/absolute"], "must be relative"),
        (&["--parent-path", "../nothing-there"], "No such file"),
        (&["--lazy-pages", "--status-fd", "77"], "--status-fd 77"),
    ] {
        let args = [&["checkpoint", "--image-path", &images], options].concat();
        has(&created.call(&args)?.err()?.stderr, said)?;
    }
    let restored = Bundle::workload(t.scope, "restored", &["sleep"]).write()?;
    let mut command = t.rt.command();
    command.args(["restore", "--image-path", &images, "--bundle"]).arg(restored.dir()).arg(restored.id());
    has(&run(&mut command)?.err()?.stderr, "descriptors.json")?;
    created.delete(&["--force"])
}

fn without_criu(t: &T<'_>) -> Result<()> {
    let container = t.start(t.workload(&["sleep"]))?;
    let mut command = t.rt.command();
    command.env("PATH", "/nowhere").args(["checkpoint", container.id(), "--image-path"]);
    let refused = run(command.arg(t.scope.path("images")))?.err()?;
    has(&refused.stderr, "there is no criu in $PATH")?;
    ensure!(container.status()? == "running");
    container.delete(&["--force"])
}

fn the_configuration_file_of_an_annotation(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let config = t.scope.path("criu.conf");
    fs::write(&config, "log-file=named-by-the-annotation.log\n")?;
    let bundle = t.sh(COUNT).set("/annotations", json!({"org.criu.config": config}));
    let counter = Counter::start(t, bundle)?;
    let images = t.scope.path("images");
    counter.call(&["checkpoint", "--leave-running", "--image-path", &images.to_string_lossy()])?.ok()?;
    ensure!(images.join("named-by-the-annotation.log").exists(), "criu didn't read it");
    counter.delete()
}
