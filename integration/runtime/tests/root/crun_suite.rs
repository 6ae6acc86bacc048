//! What makes crun's callers at home, and what its test suite found: its options, annotations and mount options.

use std::fs;
use std::os::unix::fs::{OpenOptionsExt, symlink};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use integration_support::{Bundle, Kind, run, skip, wait_for};
use serde_json::{Value, json};

use super::cgroups::{place, read, unified};
use crate::{T, has, lacks};

crate::each_runtime!(
    nodes_in_a_user_namespace_are_as_the_config_says,
    nodes_in_a_user_namespace_can_be_mapped_executable,
    links_can_be_mounted_and_mounted_over,
    links_can_be_copied,
    links_of_the_image_lead_nowhere_else,
    another_config,
    a_config_through_a_pipe,
    all_that_match_are_killed_and_deleted,
    a_container_without_a_cgroup,
    device_rules_are_listed_in_their_order,
    a_limit_of_no_pids_was_none,
    destinations_may_be_the_hosts,
);
crate::each_runtime!(@one corten_alone Corten
    the_log_can_be_named_as_for_crun hooks_are_as_crun_has_them
    a_pidfd_goes_where_an_annotation_says access_that_nobody_knows_is_looked_over
);

fn mapped(bundle: Bundle) -> Bundle {
    let maps = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
    let bundle = bundle.push("/linux/namespaces", json!({"type": "user"}));
    bundle.set("/linux/uidMappings", maps.clone()).set("/linux/gidMappings", maps)
}

/// The node that is made has the wanted mode and owner, which the host's of that name hasn't, if there is one at all.
fn nodes_in_a_user_namespace_are_as_the_config_says(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc binds the host's node")
        || t.differs(Kind::Crun, "crun 1.8 forgets the mode")
    {
        return Ok(());
    }
    let devices = json!([
        {"path": "/dev/deep/nought", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 10, "gid": 11},
        {"path": "/dev/full", "type": "c", "major": 1, "minor": 7, "fileMode": 0o604, "uid": 10, "gid": 0},
    ]);
    let script = "stat -c '%F %a %u:%g %t:%T' /dev/deep/nought /dev/full; head -c 3 /dev/deep/nought | wc -c; \
                  chmod 600 /dev/full && stat -c %a /dev/full";
    let before = fs::metadata("/dev/full").context("stat the host's /dev/full")?;
    let out = t.out(mapped(t.sh(script)).set("/linux/devices", devices))?;
    let expected = "character special file 640 10:11 1:5\ncharacter special file 604 10:0 1:7\n3\n600\n";
    ensure!(out == expected, "{out}");
    let after = fs::metadata("/dev/full").context("stat the host's /dev/full")?;
    let mode = |metadata: &fs::Metadata| std::os::unix::fs::PermissionsExt::mode(&metadata.permissions());
    ensure!(mode(&before) == mode(&after), "the host's own node was changed");
    Ok(())
}

/// noexec would keep everybody from mapping /dev/zero (or an SGX enclave) executable. The kernel runs no device anyway.
fn nodes_in_a_user_namespace_can_be_mapped_executable(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun binds them with noexec") {
        return Ok(());
    }
    // The default ones are the host's, with its options.
    let host = fs::read_to_string("/proc/mounts")?;
    let host = host.lines().rfind(|line| line.split(' ').nth(1) == Some("/dev")).unwrap_or_default();
    let host_noexec = host.split([' ', ',']).any(|word| word == "noexec");
    let devices = json!([{"path": "/dev/made", "type": "c", "major": 1, "minor": 5, "fileMode": 0o666}]);
    let script =
        "grep -E ' /dev/(null|zero|full|random|urandom|tty|made) ' /proc/self/mountinfo; echo x > /dev/null";
    let ours = t.rt.kind() == Kind::Corten;
    let bundle = mapped(t.sh(script));
    let out = t.out(if ours { bundle.set("/linux/devices", devices) } else { bundle })?;
    let lines: Vec<_> = out.lines().collect();
    ensure!(lines.len() >= if ours { 7 } else { 6 }, "{out}");
    for line in lines {
        let (path, options) = (line.split(' ').nth(4), line.split(' ').nth(5).unwrap_or_default());
        if path == Some("/dev/made") || !host_noexec {
            lacks(options, "noexec")?;
        }
        if ours {
            has(options, "nosuid")?;
        }
    }
    Ok(())
}

fn links_can_be_mounted_and_mounted_over(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("src-nofollow") {
        return Ok(());
    }
    let (file, link) = (t.scope.path("file"), t.scope.path("link"));
    fs::write(&file, "in the file\n")?;
    symlink(&file, &link)?;
    let source = link.to_string_lossy();
    for (options, expected) in [
        (&["bind", "dest-nofollow", "src-nofollow"][..], format!("link {}\nnone\n", file.display())),
        (&["bind", "dest-nofollow"], "in the file\nnone\n".to_owned()),
        (&["bind"], "link elsewhere\nin the file\n".to_owned()),
    ] {
        for userns in [false, true] {
            let script = "if [ -L /target ]; then echo link $(readlink /target); else cat /target; fi; \
                          cat /elsewhere 2>/dev/null || echo none";
            let bundle = Bundle::sh(t.scope, &format!("{}{userns}", options.len()), script);
            let bundle = if userns { mapped(bundle) } else { bundle };
            let bundle = bundle.mount("bind", &source, "/target", options).write()?;
            symlink("elsewhere", bundle.rootfs().join("target"))?;
            if userns {
                // So that what is missing can be made there.
                std::os::unix::fs::chown(bundle.rootfs(), Some(100_000), Some(100_000))?;
            }
            let out = t.rt.run(&bundle)?.ok()?.stdout;
            ensure!(out == expected, "{options:?}, user namespace {userns}: {out}");
        }
    }
    Ok(())
}

fn links_can_be_copied(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("copy-symlink") {
        return Ok(());
    }
    let link = t.scope.path("link");
    symlink("to/nowhere", &link)?;
    let bundle = t.sh("readlink /a/sym/link").mount(
        "bind",
        &link.to_string_lossy(),
        "/a/sym/link",
        &["rbind", "copy-symlink"],
    );
    let bundle = bundle.write()?;
    // The second time it is there already.
    for _ in 0..2 {
        let out = t.rt.run(&bundle)?.ok()?.stdout;
        ensure!(out == "to/nowhere\n", "{out}");
    }
    fs::remove_file(bundle.rootfs().join("a/sym/link"))?;
    fs::write(bundle.rootfs().join("a/sym/link"), "another file")?;
    t.refused_for(&bundle, "something else is there")?;
    // What is no link is mounted.
    let file = t.scope.path("file");
    fs::write(&file, "a file\n")?;
    let options = &["bind", "copy-symlink"];
    let bundle = Bundle::sh(t.scope, "file", "cat /f").mount("bind", &file.to_string_lossy(), "/f", options);
    let out = t.out(bundle)?;
    ensure!(out == "a file\n", "{out}");
    Ok(())
}

/// A source in the rootfs is found as it looks from inside, whatever becomes of a link at its end.
fn links_of_the_image_lead_nowhere_else(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("src-nofollow and copy-symlink") {
        return Ok(());
    }
    let outside = t.scope.make_dir("outside")?;
    fs::write(outside.join("file"), "the host's\n")?;
    symlink("of-the-host", outside.join("link"))?;
    for (i, option) in ["src-nofollow", "copy-symlink"].into_iter().enumerate() {
        let script = "cat /got; if [ -L /got-link ]; then readlink /got-link; else cat /got-link; fi";
        let bundle = Bundle::sh(t.scope, &format!("image{i}"), script);
        let rootfs = bundle.rootfs();
        let source = |name: &str| rootfs.join("evil").join(name).to_string_lossy().into_owned();
        let (file, link) = (source("file"), source("link"));
        let options = &["bind", "dest-nofollow", option];
        let options = if option == "src-nofollow" { &options[..] } else { &["bind", option] };
        let bundle = bundle.mount("bind", &file, "/got", options).mount("bind", &link, "/got-link", options);
        let bundle = bundle.write()?;
        // What is there from inside.
        let inside = rootfs.join(outside.strip_prefix("/")?);
        fs::create_dir_all(&inside)?;
        fs::write(inside.join("file"), "the image's\n")?;
        symlink("of-the-image", inside.join("link"))?;
        symlink(&outside, rootfs.join("evil"))?;
        let out = t.rt.run(&bundle)?.ok()?.stdout;
        ensure!(out == "the image's\nof-the-image\n", "{option}: {out}");
    }
    Ok(())
}

fn another_config(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "--config is crun's") {
        return Ok(());
    }
    let bundle = t.sh("echo the other").write()?;
    let text = fs::read_to_string(bundle.dir().join("config.json"))?;
    let other = bundle.dir().join("other/name.json");
    fs::create_dir(bundle.dir().join("other"))?;
    fs::rename(bundle.dir().join("config.json"), &other)?;
    let out = t.rt.run_with(&bundle, &["--config", &other.to_string_lossy()], b"")?.ok()?.stdout;
    ensure!(out == "the other\n", "{out}");
    fs::write(bundle.dir().join("config.json"), text.replace("the other", "the usual"))?;
    let out = t.rt.run(&bundle)?.ok()?.stdout;
    ensure!(out == "the usual\n", "{out}");
    let said = t.rt.run_with(&bundle, &["--config", "missing.json"], b"")?.err()?.stderr;
    has(&said, "missing.json")?;
    // A relative one begins where the caller is.
    let mut command = t.rt.command();
    command.current_dir(bundle.dir().join("other")).args(["run", "--config=name.json", "--bundle"]);
    let out = run(command.arg(bundle.dir()).arg(bundle.id()))?.ok()?.stdout;
    ensure!(out == "the other\n", "{out}");
    Ok(())
}

/// As a shell makes one of `<(...)`.
fn a_config_through_a_pipe(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "--config is crun's") {
        return Ok(());
    }
    let bundle = t.sh("echo piped").write()?;
    let elsewhere = bundle.dir().join("elsewhere.json");
    fs::rename(bundle.dir().join("config.json"), &elsewhere)?;
    let config = fs::read(&elsewhere)?;
    let out = t.rt.run_with(&bundle, &["--config", "/dev/stdin"], &config)?.ok()?.stdout;
    ensure!(out == "piped\n", "{out}");
    // Nobody has to wait for ever for who never comes.
    let fifo = bundle.dir().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU)?;
    let mut command = t.rt.command();
    command.args(["run", "--config"]).arg(&fifo).arg("--bundle").arg(bundle.dir()).arg(bundle.id());
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    // Can be opened once there is a reader.
    let open = || fs::File::options().write(true).custom_flags(nix::libc::O_NONBLOCK).open(&fifo);
    let mut writer = None;
    wait_for("it to open the fifo", || {
        writer = open().ok();
        writer.is_some()
    })?;
    let pid = nix::unistd::Pid::from_raw(child.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)?;
    wait_for("it to end", || child.try_wait().is_ok_and(|status| status.is_some()))?;
    drop(writer);
    Ok(())
}

fn all_that_match_are_killed_and_deleted(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "--regex is crun's") {
        return Ok(());
    }
    let start = |name| t.rt.start(&Bundle::workload(t.scope, name, &["sleep"]).write()?);
    let (one, two, other) = (start("one-1")?, start("one-2")?, start("other")?);
    let pattern = format!("{}one-[0-9]+$", &one.id()[..one.id().len() - "one-1".len()]);
    t.rt.call(&["kill", "--regex", &pattern, "KILL"])?.ok()?;
    one.wait_status("stopped")?;
    two.wait_status("stopped")?;
    ensure!(other.status()? == "running");
    t.rt.call(&["delete", "--regex", &pattern])?.ok()?;
    ensure!(one.status().is_err() && two.status().is_err() && other.status()? == "running");
    if t.rt.kind() == Kind::Corten {
        let pattern = regex_of(other.id());
        let said = t.rt.call(&["delete", "--regex", &pattern])?.err()?.stderr;
        has(&said, other.id())?;
        has(&said, "running")?;
        has(&t.rt.call(&["delete", "--regex", "web-["])?.err()?.stderr, "--regex")?;
    }
    t.rt.call(&["delete", "--force", "--regex", &regex_of(other.id())])?.ok()?;
    ensure!(other.status().is_err());
    Ok(())
}

fn regex_of(id: &str) -> String {
    format!("^{id}$")
}

fn a_container_without_a_cgroup(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "--cgroup-manager is crun's") {
        return Ok(());
    }
    let bundle = t.workload(&["sleep"]).namespace("cgroup", None).edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|mount| mount["destination"] != "/sys/fs/cgroup");
        }
    });
    let bundle = bundle.write()?;
    let called = |words: &[&str]| {
        let mut command = t.rt.command();
        command.arg("--cgroup-manager=disabled").args(words);
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let status = command.status().context("run it")?;
        ensure!(status.success(), "{words:?}: {status}");
        Ok(())
    };
    called(&["create", "--bundle", &bundle.dir().to_string_lossy(), bundle.id()])?;
    called(&["start", bundle.id()])?;
    let state: Value = serde_json::from_str(&t.rt.call(&["state", bundle.id()])?.ok()?.stdout)?;
    let pid = state["pid"].as_i64().context("a pid")?;
    let cgroups = |who: &str| fs::read_to_string(format!("/proc/{who}/cgroup"));
    let (theirs, ours) = (cgroups(&pid.to_string())?, cgroups("self")?);
    ensure!(!place(t, "memory").exists(), "there is a cgroup");
    if t.rt.kind() == Kind::Corten {
        for words in [&["ps"][..], &["pause"], &["update", "--pids-limit", "5"]] {
            let said = t.rt.call(&[words, &[bundle.id()]].concat())?.err()?.stderr;
            has(&said, "has no cgroup of its own")?;
        }
    }
    called(&["delete", "--force", bundle.id()])?;
    ensure!(theirs == ours, "{theirs}\nis not\n{ours}");
    Ok(())
}

fn device_rules_are_listed_in_their_order(t: &T<'_>) -> Result<()> {
    if unified() {
        skip("needs cgroup v1");
        return Ok(());
    }
    if t.differs(Kind::Runc, "runc sorts them") {
        return Ok(());
    }
    let rule = |kind: &str, major: i64, minor: i64, access: &str| json!({"allow": true, "type": kind, "major": major, "minor": minor, "access": access});
    let rules = json!([{"allow": false, "access": "rwm"}, rule("c", 10, 229, "rwm"), rule("b", 8, 20, "rw"), rule("b", 10, 200, "r")]);
    let _container =
        t.rt.create(&t.workload(&["sleep"]).set("/linux/resources/devices", rules).write()?, &[])?;
    let list = read(&place(t, "devices"), "devices.list")?;
    let first: Vec<_> = list.lines().take(3).collect();
    ensure!(first == ["c 10:229 rwm", "b 8:20 rw", "b 10:200 r"], "{list}");
    Ok(())
}

/// Since runtime-spec 1.3 it is a limit.
fn a_limit_of_no_pids_was_none(t: &T<'_>) -> Result<()> {
    let limited = |version: &str| {
        let bundle = t.workload(&["sleep"]).set("/ociVersion", json!(version));
        let bundle = bundle.set("/linux/resources/pids", json!({"limit": 0})).write()?;
        let container = t.rt.create(&bundle, &[])?;
        let limit = read(&place(t, "pids"), "pids.max")?;
        container.delete(&["--force"])?;
        anyhow::Ok(limit)
    };
    let limit = limited("1.0.2")?;
    ensure!(limit == "max", "{limit}");
    if t.too_new_for_peers("runtime-spec 1.3") {
        return Ok(());
    }
    let limit = limited("1.3.0")?;
    ensure!(limit == "1", "{limit}");
    Ok(())
}

fn destinations_may_be_the_hosts(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun takes them as they are")
        || t.differs(Kind::Runc, "runc 1.1 makes none there")
    {
        return Ok(());
    }
    let source = t.scope.make_dir("source")?;
    fs::write(source.join("file"), "inside\n")?;
    let bundle = t.sh("cat /srv/data/file; ls /tmp");
    let destination = bundle.rootfs().join("srv/data");
    let bundle = bundle.mount("bind", &source.to_string_lossy(), &destination.to_string_lossy(), &["bind"]);
    let finished = t.rt.run(&bundle.write()?)?.ok()?;
    ensure!(finished.stdout == "inside\n", "{finished:?}");
    if t.rt.kind() == Kind::Corten {
        has(&finished.stderr, "it is taken as /srv/data")?;
    }
    Ok(())
}

fn the_log_can_be_named_as_for_crun(t: &T<'_>) -> Result<()> {
    let log = t.scope.path("the.log");
    let said = |level: &str| {
        let bundle = t.workload(&["exit", "0"]).set("/linux/resources/devices/0/access", json!("rwmx"));
        let bundle = bundle.set("/linux/resources/devices/0/allow", json!(false)).write()?;
        let mut command = t.rt.command();
        command.arg(format!("--log=file:{}", log.display())).args(["--log-level", level, "run", "--bundle"]);
        run(command.arg(bundle.dir()).arg(bundle.id()))?.ok()?;
        let text = fs::read_to_string(&log)?;
        fs::remove_file(&log)?;
        anyhow::Ok(text)
    };
    let text = said("error")?;
    ensure!(text.is_empty(), "{text}");
    let text = said("warning")?;
    has(&text, "rwmx")?;
    lacks(&text, "level=debug")?;
    has(&said("debug")?, "level=debug")?;
    let finished = run(t.rt.command().args(["--log", "journald:x", "list"]))?.err()?;
    has(&finished.stderr, "journald:x: the log can only be a file")
}

/// A runtime that is called crun, as by a link in its place.
fn called_crun(t: &T<'_>) -> Result<Command> {
    let link = t.scope.make_dir("called")?.join("crun");
    if !link.is_symlink() {
        symlink(t.rt.binary(), &link)?;
    }
    let mut command = Command::new(link);
    command.arg("--root").arg(t.rt.root());
    Ok(command)
}

/// Under its own name nothing is heeded that names a file of the host: whoever may annotate a pod has no business there.
fn hooks_are_as_crun_has_them(t: &T<'_>) -> Result<()> {
    const KINDS: [&str; 6] =
        ["prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop"];
    let (out, err) = (t.scope.path("out"), t.scope.path("err"));
    let mut bundle = t.sh("true");
    for kind in KINDS {
        // startContainer hooks are the container's, where busybox is too.
        let script = format!("echo {kind}; echo {kind} >&2");
        let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "sh", "-c", script]}]);
        bundle = bundle.set(&format!("/hooks/{kind}"), hook);
    }
    let annotations = json!({"run.oci.hooks.stdout": out, "run.oci.hooks.stderr": err});
    let bundle = bundle.set("/annotations", annotations).write()?;
    if !fs::exists("/bin/busybox")? {
        skip("needs the host's busybox");
        return Ok(());
    }
    t.rt.run(&bundle)?.ok()?;
    ensure!(!out.exists() && !err.exists(), "the annotations were heeded");
    run(called_crun(t)?.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id()))?.ok()?;
    for file in [&out, &err] {
        let text = fs::read_to_string(file)?;
        ensure!(text.lines().eq(KINDS), "{}: {text}", file.display());
        fs::remove_file(file)?;
    }
    // By other commands too.
    let quiet = |command: &mut Command| {
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        anyhow::Ok(command.status().context("run it")?.success())
    };
    ensure!(quiet(called_crun(t)?.arg("create").arg("--bundle").arg(bundle.dir()).arg(bundle.id()))?);
    run(called_crun(t)?.args(["start", bundle.id()]))?.ok()?;
    wait_for("it to end", || {
        let state = t.rt.call(&["state", bundle.id()]);
        state.is_ok_and(|state| state.stdout.contains("\"stopped\""))
    })?;
    run(called_crun(t)?.args(["delete", bundle.id()]))?.ok()?;
    let text = fs::read_to_string(&out)?;
    let mut lines: Vec<_> = text.lines().collect();
    lines.sort_unstable();
    let mut kinds = KINDS;
    kinds.sort_unstable();
    ensure!(lines == kinds, "{text}");
    // And start where crun starts them.
    let hook = json!([{"path": "/bin/busybox", "args": ["busybox", "pwd"]}]);
    let bundle = Bundle::sh(t.scope, "where", "true").set("/hooks/createContainer", hook);
    let bundle = bundle.set("/annotations", json!({"run.oci.hooks.stdout": err})).write()?;
    fs::remove_file(&err)?;
    run(called_crun(t)?.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id()))?.ok()?;
    let text = fs::read_to_string(&err)?;
    ensure!(text.trim_end() == bundle.dir().to_string_lossy(), "{text}");
    let relative = Bundle::sh(t.scope, "relative", "true")
        .set("/annotations", json!({"run.oci.hooks.stdout": "out"}))
        .write()?;
    let failed =
        run(called_crun(t)?.arg("run").arg("--bundle").arg(relative.dir()).arg(relative.id()))?.err()?;
    has(&failed.stderr, "out is not absolute")
}

fn a_pidfd_goes_where_an_annotation_says(t: &T<'_>) -> Result<()> {
    let path = t.scope.path("receiver");
    let listener = std::os::unix::net::UnixListener::bind(&path)?;
    listener.set_nonblocking(true)?;
    let bundle = t.workload(&["exit", "0"]).set("/annotations", json!({"run.oci.pidfd_receiver": path}));
    let bundle = bundle.write()?;
    t.rt.run(&bundle)?.ok()?;
    ensure!(listener.accept().is_err(), "the annotation was heeded");
    run(called_crun(t)?.arg("run").arg("--bundle").arg(bundle.dir()).arg(bundle.id()))?.ok()?;
    listener.accept().context("nobody has called")?;
    Ok(())
}

fn access_that_nobody_knows_is_looked_over(t: &T<'_>) -> Result<()> {
    let rule = json!({"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rwa"});
    let finished =
        t.rt.run(&t.workload(&["exit", "0"]).push("/linux/resources/devices", rule).write()?)?.ok()?;
    has(&finished.stderr, "is taken as")
}
