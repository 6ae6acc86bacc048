//! What each flag of checkpoint and restore is for: without it criu refuses, or something is missing afterwards.

use std::fs;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use anyhow::{Result, ensure};
use integration_support::wait_for;
use serde_json::json;

use super::apparmor::Profiles;
use super::checkpoint::{COUNT, Counter, works};
use crate::{T, has, has_one};

crate::each_runtime!(@one corten Corten
    link_remap shell_job manage_cgroups_modes empty_ns a_page_server lazy_pages
    deduplicated an_apparmor_profile_of_its_own
);

/// Fails to checkpoint without `flag`, for `why`; with it the container goes on after a restore.
fn needs<'a>(t: &'a T<'a>, script: &str, flag: &str, why: &[&str]) -> Result<Counter<'a>> {
    let counter = Counter::start(t, t.sh(&format!("{script}; {COUNT}")))?;
    let (failed, images) = (t.scope.path("failed"), t.scope.path("images"));
    let refused = counter.call(&["checkpoint", "--image-path", &failed.to_string_lossy()])?.err()?;
    has_one(&refused.stderr, why)?;
    counter.counts_on()?;
    let images = images.to_string_lossy();
    counter.call(&["checkpoint", "--image-path", &images, flag])?.ok()?;
    let stood = counter.count()?;
    // What has got a name needn't be told so.
    let flags: &[&str] = if flag == "--link-remap" { &[] } else { &[flag] };
    counter.detached(&[&["restore", "--image-path", &images], flags].concat())?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    Ok(counter)
}

fn exec(counter: &Counter<'_>, t: &T<'_>, script: &str) -> Result<String> {
    let mut exec = t.rt.command();
    exec.args(["exec", counter.bundle.id(), "/bin/sh", "-c", script]);
    Ok(integration_support::run(&mut exec)?.ok()?.stdout)
}

fn link_remap(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    // Open, without the name that it was opened by, but with another.
    let script = "echo text > /tmp/gone; exec 8</tmp/gone; ln /tmp/gone /tmp/other; rm /tmp/gone";
    let counter = needs(t, script, "--link-remap", &["link-remap", "link_remap", "remap"])?;
    ensure!(exec(&counter, t, "cat /proc/1/fd/8")? == "text\n");
    counter.delete()
}

fn there_and_back(t: &T<'_>, flags: &[&str]) -> Result<()> {
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    counter.call(&[&["checkpoint", "--image-path", &images], flags].concat())?.ok()?;
    let stood = counter.count()?;
    counter.detached(&[&["restore", "--image-path", &images], flags].concat())?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    let cgroup =
        exec(&counter, t, "cat /sys/fs/cgroup/pids.max /sys/fs/cgroup/pids/pids.max 2>/dev/null || :")?;
    // Where criu ignores cgroups it makes no cgroup namespace either.
    ensure!(cgroup == "1024\n" || flags.contains(&"ignore"), "{flags:?}: {cgroup}");
    counter.delete()?;
    fs::remove_dir_all(images.as_ref())?;
    Ok(fs::remove_file(counter.bundle.rootfs().join("tmp/count"))?)
}

fn shell_job(t: &T<'_>) -> Result<()> {
    if works()? { there_and_back(t, &["--shell-job", "--ext-unix-sk"]) } else { Ok(()) }
}

fn manage_cgroups_modes(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    for mode in ["soft", "full", "ignore"] {
        there_and_back(t, &["--manage-cgroups-mode", mode])?;
    }
    // Strict fails where there is a cgroup, and there is: made for the container that is restored.
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    let strict = ["--manage-cgroups-mode", "strict", "--image-path", &images];
    counter.call(&[&["checkpoint"], &strict[..]].concat())?.ok()?;
    let bundle = counter.bundle.dir().to_string_lossy().into_owned();
    let refused = counter.call(&[&["restore", "--detach", "--bundle", &bundle], &strict[..]].concat())?;
    has_one(&refused.err()?.stderr, &["cg: "])?;
    has_one(&counter.call(&["state"])?.err()?.stderr, &["does not exist"])
}

fn empty_ns(t: &T<'_>) -> Result<()> {
    if works()? { there_and_back(t, &["--empty-ns", "network"]) } else { Ok(()) }
}

/// A daemon of criu's, that is gone when it is dropped.
struct Daemon(Child);

impl Daemon {
    fn start(args: &[&str]) -> Result<Self> {
        let mut command = Command::new("criu");
        Ok(Self(command.args(args).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.0.kill().ok(); // because it may have ended by itself
        self.0.wait().ok();
    }
}

/// A port that nobody listened on just now.
pub(crate) fn port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn listens(port: u16) -> bool {
    let line = format!(":{port:04X} 00000000:0000 0A");
    fs::read_to_string("/proc/net/tcp").is_ok_and(|text| text.contains(&line))
}

fn a_page_server(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.make_dir("images")?;
    let images = images.to_string_lossy();
    let port = port()?;
    let server = Daemon::start(&[
        "page-server",
        "-D",
        &images,
        "--address",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ])?;
    wait_for("the page server", || listens(port))?;
    let address = format!("127.0.0.1:{port}");
    counter.call(&["checkpoint", "--image-path", &images, "--page-server", &address])?.ok()?;
    drop(server);
    let stood = counter.count()?;
    counter.detached(&["restore", "--image-path", &images])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    counter.delete()
}

fn lazy_pages(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = Counter::start(t, t.sh(COUNT))?;
    let images = t.scope.make_dir("images")?;
    let (work, images) = (t.scope.path("work"), images.to_string_lossy());
    let port = port()?;
    let address = format!("127.0.0.1:{port}");
    let ready = t.scope.path("ready");
    // It serves the pages until all of them are fetched.
    let mut command = t.rt.command();
    command.args([
        "checkpoint",
        "--lazy-pages",
        "--page-server",
        &address,
        "--status-fd",
        "3",
        "--image-path",
        &images,
    ]);
    command.arg("--work-path").arg(&work).arg(counter.bundle.id());
    let mut source = Command::new("sh");
    source.args(["-c", &format!("exec \"$@\" 3>{}", ready.display()), "sh"]).arg(command.get_program());
    let mut source = source.args(command.get_args()).stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    let mut early = false;
    wait_for("pages to be fetched", || {
        early = source.try_wait().is_ok_and(|ended| ended.is_some());
        early || fs::metadata(&ready).is_ok_and(|ready| ready.len() == 1)
    })?;
    if early {
        let said = std::io::read_to_string(source.stderr.take().expect("piped"))?;
        has(&said, "criu says that this kernel can't do it")?;
        integration_support::skip("this kernel can't fetch pages lazily for criu");
        return counter.delete();
    }
    let fetcher = Daemon::start(&[
        "lazy-pages",
        "-D",
        &images,
        "-W",
        &work.to_string_lossy(),
        "--page-server",
        "--address",
        "127.0.0.1",
        "--port",
        &port.to_string(),
    ])?;
    wait_for("the lazy pages' socket", || work.join("lazy-pages.socket").exists())?;
    let stood = counter.count()?;
    let renamed = Counter::again(&counter, "lazy")?;
    renamed.detached(&[
        "restore",
        "--lazy-pages",
        "--image-path",
        &images,
        "--work-path",
        &work.to_string_lossy(),
    ])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    wait_for("all pages to be fetched", || source.try_wait().is_ok_and(|ended| ended.is_some()))?;
    ensure!(source.wait()?.success(), "{}", std::io::read_to_string(source.stderr.take().expect("piped"))?);
    drop(fetcher);
    renamed.delete()
}

fn deduplicated(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let counter = Counter::start(t, t.sh(COUNT))?;
    let (before, images) = (t.scope.path("before"), t.scope.path("images"));
    counter.call(&["checkpoint", "--pre-dump", "--image-path", &before.to_string_lossy()])?.ok()?;
    counter.counts_on()?;
    let images = images.to_string_lossy();
    counter
        .call(&["checkpoint", "--auto-dedup", "--image-path", &images, "--parent-path", "../before"])?
        .ok()?;
    let stood = counter.count()?;
    counter.detached(&["restore", "--auto-dedup", "--image-path", &images])?;
    wait_for("it to count on from there", || counter.count().is_ok_and(|now| now > stood))?;
    counter.delete()
}

fn an_apparmor_profile_of_its_own(t: &T<'_>) -> Result<()> {
    if !works()? {
        return Ok(());
    }
    let Some(profiles) = Profiles::load(t)? else { return Ok(()) };
    let counter = Counter::start(t, t.sh(COUNT).set("/process/apparmorProfile", json!(profiles.one)))?;
    let images = t.scope.path("images");
    let images = images.to_string_lossy();
    counter.call(&["checkpoint", "--image-path", &images])?.ok()?;
    for (flags, profile) in [
        (&[][..], &profiles.one),
        (&["--lsm-profile", &format!("apparmor:{}", profiles.other)], &profiles.other),
    ] {
        counter.detached(&[&["restore", "--image-path", &images], flags].concat())?;
        has(&exec(&counter, t, "cat /proc/1/attr/current")?, profile)?;
        counter.delete()?;
    }
    Ok(())
}
