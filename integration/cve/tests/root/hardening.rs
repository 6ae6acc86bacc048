//! What has no number: attacks that nobody has had to report, and mistakes that would have made one.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use integration_cve::Swap;
use integration_support::{require_program, run};
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;

use crate::T;

crate::attack!([corten Corten, runc Runc, crun Crun] (
    a_mask_through_a_link_masks_what_it_points_to,
    the_callers_groups_stay_outside,
    a_bundle_by_a_winding_path
));

// crun 1.8 of Debian 12 falls to both: `delete --force ../victim` deletes the directory.
crate::attack!([inside_corten Corten, inside_runc Runc] (an_id_cannot_leave_the_root, a_removed_working_directory_is_refused));

crate::attack!([only_corten Corten] (
    a_fifo_for_passwd_hangs_nobody,
    minus_one_is_nobody,
    a_swapped_node_changes_no_file_of_the_host,
    a_restore_does_not_follow_links_out_of_the_rootfs
));

/// Seen to fail with `find` of `steps/mask.rs` opening with no links allowed and taking ELOOP for "isn't there":
/// "secretsecret".
fn a_mask_through_a_link_masks_what_it_points_to(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("cat /link /secret; true").set("/linux/maskedPaths", json!(["/link"])).write()?;
    fs::write(bundle.rootfs().join("secret"), "secret")?;
    symlink("/secret", bundle.rootfs().join("link"))?;
    let finished = t.rt.run(&bundle)?;
    ensure!(!finished.stdout.contains("secret"), "{finished:?}");
    Ok(())
}

/// Seen to fail with `validate_id` letting everything pass: "../victim/below was accepted".
fn an_id_cannot_leave_the_root(t: &T<'_>) -> Result<()> {
    let victim = t.scope.make_dir("victim/below")?;
    let bundle = t.sh("true").write()?;
    for id in ["../victim", "../victim/below", ".", "..", "/", "a/b", "a/../../victim", ""] {
        let mut create = t.rt.command();
        create.args(["run", "--bundle"]).arg(bundle.dir()).arg(id);
        ensure!(!run(&mut create)?.status.success(), "{id:?} was accepted");
        for verb in [&["delete", "--force"][..], &["kill"], &["state"], &["start"]] {
            run(t.rt.command().args(verb).arg(id))?;
        }
    }
    ensure!(victim.exists(), "the victim was deleted");
    ensure!(fs::read_dir(t.rt.root())?.next().is_none(), "something is left");
    Ok(())
}

/// It can be reached through procfs, but is nowhere. Seen to fail without `inside` in `steps/user.rs`: exec succeeded.
fn a_removed_working_directory_is_refused(t: &T<'_>) -> Result<()> {
    let script = "mkdir /tmp/gone; cd /tmp/gone; rmdir /tmp/gone; touch /tmp/ready; sleep 100000";
    let bundle = t.sh(script).write()?;
    let container = t.rt.start(&bundle)?;
    integration_support::wait_for("the script", || bundle.rootfs().join("tmp/ready").exists())?;
    container.exec(&["--cwd", "/proc/1/cwd"], &["/bin/true"])?.err()?;
    container.delete(&["--force"])
}

/// Seen to fail with `become_user` leaving the groups alone where the config has none: "groups: [4242]".
fn the_callers_groups_stay_outside(t: &T<'_>) -> Result<()> {
    if !require_program("setpriv") {
        return Ok(());
    }
    let bundle = t.sh("exec /bin/workload id").set("/process/user", json!({"uid": 0, "gid": 0})).write()?;
    let inner = {
        let mut command = t.rt.command();
        command.args(["run", "--bundle"]).arg(bundle.dir()).arg(bundle.id());
        command
    };
    let mut command = Command::new("setpriv");
    command.args(["--groups", "4242"]).arg(inner.get_program()).args(inner.get_args());
    let out = run(&mut command)?.ok()?.stdout;
    ensure!(!out.contains("4242"), "{out}");
    Ok(())
}

fn a_bundle_by_a_winding_path(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("echo here").write()?;
    t.scope.make_dir("aside")?;
    let name = bundle.dir().file_name().unwrap_or_default();
    let winding = t.scope.path("aside").join("../aside/..").join(name).join(".");
    let mut command = t.rt.command();
    command.current_dir("/").args(["run", "--bundle"]).arg(winding).arg(bundle.id());
    ensure!(run(&mut command)?.ok()?.stdout == "here\n");
    Ok(())
}

/// Seen to fail with `home` opening it as it is: "didn't end within 20s".
fn a_fifo_for_passwd_hangs_nobody(t: &T<'_>) -> Result<()> {
    let bundle = t.sh("echo $HOME").set("/process/env", json!(["PATH=/bin"])).write()?;
    fs::remove_file(bundle.rootfs().join("etc/passwd"))?;
    nix::unistd::mkfifo(&bundle.rootfs().join("etc/passwd"), Mode::from_bits_truncate(0o644))?;
    ensure!(t.rt.run(&bundle)?.ok()?.stdout == "/\n");
    Ok(())
}

/// setresuid(2) and setresgid(2) take -1 for "as before", which is root. Seen to fail before the plan refused it: "uid=0(root)
/// gid=0(root)".
fn minus_one_is_nobody(t: &T<'_>) -> Result<()> {
    for user in [json!({"uid": 4_294_967_295_u32, "gid": 0}), json!({"uid": 0, "gid": 4_294_967_295_u32})] {
        let bundle = t.sh("id").set("/process/user", user).write()?;
        t.refused_for(&bundle, "process.user")?;
    }
    Ok(())
}

/// A node that is there already gets its mode, but not the file that a link in its place points to. Seen to fail with
/// `node_in` following links, as it did, in three of six runs: "the victim's mode is 666".
fn a_swapped_node_changes_no_file_of_the_host(t: &T<'_>) -> Result<()> {
    let victim = t.scope.path("victim");
    fs::write(&victim, "")?;
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o600))?;
    let dev = t.scope.make_dir("dev")?;
    mknod(&dev.join("null"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(1, 3))?;
    symlink(&victim, dev.join("link"))?;
    let bundle = t.sh("true").edit(|config| {
        if let Some(mounts) = config["mounts"].as_array_mut() {
            mounts.retain(|m| !m["destination"].as_str().is_some_and(|d| d.starts_with("/dev")));
            // Bind mounts on /dev are left alone, on what is above aren't.
            mounts
                .push(json!({"type": "bind", "source": dev, "destination": "/shared", "options": ["bind"]}));
        }
        // Many spellings of one name are many tries.
        let device = |n| {
            let path = format!("/shared/{}null", "./".repeat(n));
            json!({"path": path, "type": "c", "major": 1, "minor": 3, "fileMode": 0o666})
        };
        config["linux"]["devices"] = (0..10).map(device).collect();
    });
    let bundle = bundle.write()?;
    let _swap = Swap::busily(&dev.join("null"), &dev.join("link"))?;
    let mode = |path: &Path| fs::metadata(path).map(|m| m.mode() & 0o7777);
    for _ in 0..20 {
        t.rt.run(&bundle)?;
        let mode = mode(&victim)?;
        ensure!(mode == 0o600, "the victim's mode is {mode:o}");
    }
    Ok(())
}

/// What is bind-mounted from the rootfs is found there on a restore too; a container that was left running, or whoever
/// has the rootfs, may have made it a link. Whether criu works here doesn't matter: it isn't even asked. Seen to fail
/// with `inside` of `steps/mount.rs` always None: criu was asked.
fn a_restore_does_not_follow_links_out_of_the_rootfs(t: &T<'_>) -> Result<()> {
    if !require_program("criu") {
        return Ok(());
    }
    let secret = t.scope.make_dir("secret")?;
    let bundle = t.workload(&["sleep"]);
    let source = bundle.rootfs().join("var/shared");
    let plain = bundle.clone();
    let bundle = bundle.mount("bind", &source.to_string_lossy(), "/data", &["bind"]).write()?;
    symlink(&secret, &source)?;
    let images = t.scope.make_dir("images")?;
    fs::write(images.join("descriptors.json"), r#"["","",""]"#)?;
    let mut restore = t.rt.command();
    restore.args(["restore", "--detach", "--image-path"]).arg(&images).arg("--bundle").arg(bundle.dir());
    let said = run(restore.arg(bundle.id()))?.err()?.stderr;
    let expected = "bind mount var/shared of the rootfs on /data: No such file or directory";
    ensure!(said.contains(expected), "{said}");
    ensure!(!images.join("restore.log").exists(), "criu was asked");
    // Nor is what lies below a mount taken for what was on it.
    let hidden = bundle.rootfs().join("var/hidden");
    let bundle = plain.mount("tmpfs", "tmpfs", "/var", &[]);
    let bundle = bundle.mount("bind", &hidden.to_string_lossy(), "/data", &["bind"]).write()?;
    fs::create_dir(&hidden)?;
    let mut restore = t.rt.command();
    restore.args(["restore", "--detach", "--image-path"]).arg(&images).arg("--bundle").arg(bundle.dir());
    let said = run(restore.arg(bundle.id()))?.err()?.stderr;
    ensure!(
        said.contains("var/hidden of the rootfs on /data: it is on another of the container's mounts"),
        "{said}"
    );
    Ok(())
}
