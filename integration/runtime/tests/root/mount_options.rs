//! Mount options one by one (runtime-spec, config "Linux mount options").

use std::{fs, path::Path};

use anyhow::{Result, ensure};
use integration_support::{Bundle, Kind};
use serde_json::{Value, json};

use super::mounts::{line, mount_tmpfs, options, umount};
use crate::{T, has, lacks};

crate::each_runtime!(
    options_of_a_bind_mount,
    recursive_options_reach_what_is_below,
    options_of_the_file_system,
    what_the_file_system_does_not_know_is_refused,
    an_option_may_be_longer_than_fsconfig_takes,
    options_longer_than_mount_takes_are_refused,
    remount,
    links_are_not_followed,
    copied_up,
    ids_are_mapped_as_the_mount_says,
    ids_are_mapped_as_the_container_does,
    ids_are_mapped_below_too,
    links_of_the_image_lead_nowhere_else_with_mapped_ids,
);

/// Runs the body with a tmpfs that has another one in `below`.
fn with_source(t: &T<'_>, body: impl FnOnce(&Path) -> Result<()>) -> Result<()> {
    let source = t.scope.make_dir("source")?;
    mount_tmpfs(&source)?;
    let below = t.scope.make_dir("source/below")?;
    let outcome = mount_tmpfs(&below).and_then(|()| body(&source));
    umount(&below).ok(); // because the first failure is the one to tell
    umount(&source)?;
    outcome
}

fn options_of_a_bind_mount(t: &T<'_>) -> Result<()> {
    with_source(t, |source| {
        let source = source.to_string_lossy();
        // The last two contradict themselves, which peers of this age take the other way round.
        let ours = t.rt.kind() == Kind::Corten;
        let each: &[(&[&str], &[&str])] = &[
            (&["ro", "nosuid", "nodev", "noexec"], &["ro", "nosuid", "nodev", "noexec", "relatime"]),
            (&["noatime", "nodiratime"], &["rw", "noatime", "nodiratime"]),
            (&["defaults", "async", "sync", "loud", "silent", "mand", "nomand"], &["rw", "relatime"]),
            (&["ro", "rw", "noexec", "exec", "nosuid", "suid", "nodev", "dev"], &["rw", "relatime"]),
            (&["noatime", "relatime"], &["rw", "relatime"]),
        ];
        let each = each.get(..if ours { each.len() } else { each.len() - 2 }).unwrap_or_default();
        let mut bundle = t.workload(&["mounts"]);
        for (i, (given, _)) in each.iter().enumerate() {
            bundle = bundle.mount("none", &source, &format!("/m{i}"), &[&["bind"], *given].concat());
        }
        let out = t.out(bundle)?;
        for (i, (given, expected)) in each.iter().enumerate() {
            let shown = options(line(&out, &format!("/m{i}"))?);
            ensure!(shown == *expected, "{given:?}: {shown:?}");
        }
        Ok(())
    })
}

fn recursive_options_reach_what_is_below(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8.1's recursive options need more than its package has") {
        return Ok(());
    }
    with_source(t, |source| {
        let source = source.to_string_lossy();
        let each: &[(&str, &str)] = &[
            ("rro", "ro"),
            ("rnosuid", "nosuid"),
            ("rnodev", "nodev"),
            ("rnoexec", "noexec"),
            ("rnodiratime", "nodiratime"),
            ("rnoatime", "noatime"),
            ("rnosymfollow", "nosymfollow"),
        ];
        let mut bundle = t.workload(&["mounts"]);
        for (given, _) in each {
            bundle = bundle.mount("none", &source, &format!("/{given}"), &["rbind", given]);
            // And back again, for what is below.
            let (off, all) = (format!("/off-{given}"), given.replace("no", ""));
            let all = if *given == "rro" { "rrw" } else { &all };
            bundle = bundle.mount("none", &source, &off, &["rbind", given, all]);
        }
        if t.rt.kind() == Kind::Runc {
            bundle = bundle.edit(|config| {
                if let Some(mounts) = config["mounts"].as_array_mut() {
                    // runc 1.1 doesn't see this one.
                    mounts.retain(|mount| !mount["destination"].as_str().unwrap_or_default().contains("sym"));
                }
            });
        }
        let out = t.out(bundle)?;
        for (given, shown) in each {
            if *given == "rnosymfollow" && t.rt.kind() == Kind::Runc {
                continue;
            }
            let on = options(line(&out, &format!("/{given}/below"))?);
            ensure!(on.contains(shown), "{given}: {on:?}");
            if t.rt.kind() == Kind::Runc {
                continue; // 1.1 sets first and clears then, whatever the order.
            }
            let off = options(line(&out, &format!("/off-{given}/below"))?);
            ensure!(!off.contains(shown), "{given} and back: {off:?}");
        }
        Ok(())
    })
}

/// What is for the superblock rather than the mount.
fn options_of_the_file_system(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Crun, "crun 1.8 doesn't know iversion") {
        return Ok(());
    }
    let given =
        ["sync", "dirsync", "lazytime", "iversion", "size=64k", "nr_inodes=77", "noiversion", "nolazytime"];
    let out = t.out(t.workload(&["mounts"]).mount("tmpfs", "named", "/x", &given))?;
    let shown = line(&out, "/x")?;
    for option in ["sync", "size=64k", "nr_inodes=77", " - tmpfs named "] {
        has(shown, option)?;
    }
    Ok(())
}

fn what_the_file_system_does_not_know_is_refused(t: &T<'_>) -> Result<()> {
    let bundle = t.workload(&["exit", "0"]).mount("tmpfs", "tmpfs", "/x", &["there-is-no-such-option=5"]);
    let said = t.refused(bundle)?;
    if t.rt.kind() == Kind::Corten {
        // In the kernel's own words.
        has(&said, "mount tmpfs on /x")?;
        has(&said, "there-is-no-such-option")?;
    }
    Ok(())
}

fn remount(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 mounts over it first") || t.differs(Kind::Crun, "crun 1.8 too") {
        return Ok(());
    }
    let bundle = t.workload(&["mounts"]).mount("tmpfs", "tmpfs", "/x", &["size=64k"]);
    let bundle = bundle.mount("tmpfs", "tmpfs", "/x", &["remount", "noexec", "size=128k"]);
    let out = t.out(bundle.mount("", "", "/x", &["bind", "remount", "ro"]))?;
    ensure!(out.matches(" /x ").count() == 1, "{out}");
    let shown = line(&out, "/x")?;
    has(shown, "size=128k")?;
    ensure!(options(shown).contains(&"noexec") && options(shown).contains(&"ro"), "{shown}");
    Ok(())
}

fn links_are_not_followed(t: &T<'_>) -> Result<()> {
    if t.too_new_for_peers("nosymfollow") {
        return Ok(());
    }
    let bundle = t.sh("cd /x && echo hello > file && ln -s file link && cat link");
    let finished = t.rt.run(&bundle.mount("tmpfs", "tmpfs", "/x", &["nosymfollow"]).write()?)?;
    has(&finished.stderr, "Too many levels of symbolic links")?;
    lacks(&finished.stdout, "hello")
}

fn copied_up(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc 1.1 can't copy a fifo") {
        return Ok(());
    }
    if t.differs(Kind::Crun, "crun 1.8.1's tmpcopyup loses the owner") {
        return Ok(());
    }
    let bundle = t.sh(
        "cat /srv/dir/file; readlink /srv/link; stat -c '%a %u:%g' /srv/dir /srv/dir/file; test -p /srv/pipe && echo x > /srv/new",
    );
    let bundle = bundle.mount("tmpfs", "tmpfs", "/srv", &["tmpcopyup"]).write()?;
    let srv = bundle.rootfs().join("srv");
    fs::create_dir_all(srv.join("dir"))?;
    fs::write(srv.join("dir/file"), "covered\n")?;
    std::os::unix::fs::symlink("dir/file", srv.join("link"))?;
    integration_support::run(std::process::Command::new("mkfifo").arg(srv.join("pipe")))?.ok()?;
    std::os::unix::fs::chown(srv.join("dir/file"), Some(12), Some(34))?;
    for (path, mode) in [("dir", 0o750), ("dir/file", 0o640)] {
        fs::set_permissions(srv.join(path), std::os::unix::fs::PermissionsExt::from_mode(mode))?;
    }
    let out = t.rt.run(&bundle)?.ok()?.stdout;
    ensure!(out == "covered\ndir/file\n750 0:0\n640 12:34\n", "{out}");
    ensure!(!srv.join("new").exists(), "it was written to what is covered");
    Ok(())
}

/// An id-mapped mount needs the file system's consent, and the tests' are tmpfs.
fn skips_id_mapping(t: &T<'_>) -> Result<bool> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release.split(['.', '-']).map(|part| part.parse::<u32>().unwrap_or_default());
    let version = (numbers.next(), numbers.next());
    if version < (Some(6), Some(3)) {
        integration_support::skip("tmpfs can't be id-mapped before Linux 6.3");
        return Ok(true);
    }
    Ok(t.too_new_for_peers("an id-mapped mount"))
}

fn owned_by(path: &Path, uid: u32) -> Result<()> {
    fs::write(path, "")?;
    std::os::unix::fs::chown(path, Some(uid), Some(uid))?;
    Ok(())
}

fn idmapped(bundle: Bundle, source: &Path, options: &[&str], mappings: Option<Value>) -> Bundle {
    let mut mount = json!({"destination": "/data", "source": source, "type": "bind", "options": options});
    if let Some(mappings) = mappings {
        mount["uidMappings"] = mappings.clone();
        mount["gidMappings"] = mappings;
    }
    bundle.push("/mounts", mount)
}

fn ids_are_mapped_as_the_mount_says(t: &T<'_>) -> Result<()> {
    if skips_id_mapping(t)? {
        return Ok(());
    }
    with_source(t, |source| {
        owned_by(&source.join("file"), 1000)?;
        owned_by(&source.join("below/file"), 1000)?;
        let map = json!([{"containerID": 1000, "hostID": 5000, "size": 1}, {"containerID": 0, "hostID": 7000, "size": 1}]);
        for options in [&["rbind", "idmap"][..], &["rbind"]] {
            let bundle = Bundle::sh(
                t.scope,
                &format!("c{}", options.len()),
                "stat -c %u:%g /data/file /data/below/file",
            );
            let out = t.out(idmapped(bundle, source, options, Some(map.clone())))?;
            ensure!(out == "5000:5000\n1000:1000\n", "{options:?}: {out}");
        }
        Ok(())
    })
}

fn ids_are_mapped_below_too(t: &T<'_>) -> Result<()> {
    if skips_id_mapping(t)? {
        return Ok(());
    }
    with_source(t, |source| {
        owned_by(&source.join("below/file"), 1000)?;
        let map = json!([{"containerID": 1000, "hostID": 5000, "size": 1}]);
        let out =
            t.out(idmapped(t.sh("stat -c %u:%g /data/below/file"), source, &["rbind", "ridmap"], Some(map)))?;
        ensure!(out == "5000:5000\n", "{out}");
        Ok(())
    })
}

fn ids_are_mapped_as_the_container_does(t: &T<'_>) -> Result<()> {
    if skips_id_mapping(t)? {
        return Ok(());
    }
    with_source(t, |source| {
        owned_by(&source.join("file"), 0)?;
        let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65_536}]);
        let bundle = t
            .sh("stat -c %u:%g /data/file; touch /data/mine")
            .push("/linux/namespaces", json!({"type": "user"}));
        let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
        let bundle = idmapped(bundle, source, &["bind", "idmap"], None).write()?;
        // Nobody in the container may make it there.
        fs::create_dir(bundle.rootfs().join("data"))?;
        for dir in [bundle.dir(), &bundle.rootfs(), source] {
            fs::set_permissions(dir, std::os::unix::fs::PermissionsExt::from_mode(0o755))?;
        }
        let out = t.rt.run(&bundle)?.ok()?.stdout;
        ensure!(out == "0:0\n", "{out}");
        let made = std::os::unix::fs::MetadataExt::uid(&fs::metadata(source.join("mine"))?);
        ensure!(made == 0, "on the host it is {made}'s");
        Ok(())
    })
}

/// Such a source is opened by another process than others, and found as it looks from inside nevertheless.
fn links_of_the_image_lead_nowhere_else_with_mapped_ids(t: &T<'_>) -> Result<()> {
    if skips_id_mapping(t)? {
        return Ok(());
    }
    with_source(t, |source| {
        let bundle = t.sh("cat /data/file").write()?;
        let rootfs = bundle.rootfs();
        let inside = rootfs.join(source.strip_prefix("/")?);
        fs::create_dir_all(inside.join("below"))?;
        // Not every file system that a test may be on can have mapped ids.
        mount_tmpfs(&inside.join("below"))?;
        fs::write(inside.join("below/file"), "the image's\n")?;
        fs::write(source.join("below/file"), "the host's\n")?;
        std::os::unix::fs::symlink(source, rootfs.join("evil"))?;
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        let out = t.out(idmapped(bundle, &rootfs.join("evil/below"), &["bind", "idmap"], Some(map)));
        umount(&inside.join("below"))?;
        let out = out?;
        ensure!(out == "the image's\n", "{out}");
        Ok(())
    })
}

fn an_option_may_be_longer_than_fsconfig_takes(t: &T<'_>) -> Result<()> {
    let deep = format!("{}/{}", "l".repeat(140), "m".repeat(140));
    let lower = t.scope.make_dir("lower")?;
    std::fs::create_dir_all(lower.join(&deep))?;
    std::fs::write(lower.join(&deep).join("file"), "below\n")?;
    let other = t.scope.make_dir("other")?;
    let option = format!("lowerdir={}:{}", lower.join(&deep).display(), other.display());
    let script = "cat /data/file; grep ' /data ' /proc/mounts | cut -d' ' -f3,4 | cut -d, -f1-3";
    let options = &[option.as_str(), "ro", "nosuid", "noexec"];
    let bundle = t.sh(script).mount("overlay", "overlay", "/data", options);
    let out = t.out(bundle)?;
    ensure!(out.starts_with("below\noverlay ro,nosuid,noexec"), "{out}");
    Ok(())
}

/// mount(2) cuts them after a page: with an upper directory that comes last a read-only overlay would be left.
fn options_longer_than_mount_takes_are_refused(t: &T<'_>) -> Result<()> {
    if t.differs(Kind::Runc, "runc mounts what the kernel leaves of them")
        || t.differs(Kind::Crun, "so does crun")
    {
        return Ok(());
    }
    let dir = |name: &str| -> Result<String> { Ok(t.scope.make_dir(name)?.to_string_lossy().into_owned()) };
    let (lower, other, upper, work) = (dir("lower")?, dir("other")?, dir("upper")?, dir("work")?);
    let rest = format!(",upperdir={upper},workdir={work}");
    // As long as the lower directories may just be alone, or with the rest.
    let lower_of = |length: usize| {
        let (begin, end) = ("lowerdir=", format!(":{other}"));
        format!("{begin}{}{lower}{end}", "/".repeat(length - begin.len() - lower.len() - end.len()))
    };
    let script = "touch /data/new && ls /data; grep ' /data ' /proc/mounts | cut -d' ' -f3,4 | cut -d, -f1-3";
    let run = |name: &str, length: usize| -> Result<Bundle> {
        let lowers = lower_of(length);
        let (upper, work) = (format!("upperdir={upper}"), format!("workdir={work}"));
        let options = [lowers.as_str(), &upper, &work, "nosuid", "nodev"];
        Bundle::sh(t.scope, name, script).mount("overlay", "overlay", "/data", &options).write()
    };
    t.refused_for(&run("cut", 4095)?, "the kernel takes 4095")?;
    let out = t.rt.run(&run("whole", 4095 - rest.len())?)?.ok()?.stdout;
    ensure!(out == "new\noverlay rw,nosuid,nodev\n", "{out}");
    Ok(())
}
