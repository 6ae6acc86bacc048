//! Root filesystems for containers, made on the spot.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

const DIRS: [&str; 12] =
    ["bin", "sbin", "usr/bin", "usr/sbin", "etc", "proc", "sys", "dev", "tmp", "root", "home", "var"];
pub(crate) const PASSWD: &str = "root:x:0:0:root:/root:/bin/sh\nuser:x:1000:1000:user:/home:/bin/sh\n\
                                 nobody:x:65534:65534:nobody:/:/bin/false\n";
pub(crate) const GROUP: &str = "root:x:0:\nuser:x:1000:\nextra:x:2000:user\nnogroup:x:65534:\n";

/// Fills `root` with Debian's static busybox, its applets as links, the workload and a minimal /etc.
///
/// # Errors
/// When busybox-static isn't installed or something can't be written.
pub fn busybox_rootfs(root: &Path) -> Result<()> {
    workload_rootfs(root)?;
    let busybox = busybox()?;
    install(&busybox, &root.join("bin/busybox"))?;
    for applet in applets(&busybox)? {
        symlink("busybox", root.join("bin").join(&applet))
            .with_context(|| format!("link applet {applet}"))?;
    }
    Ok(())
}

/// Fills `root` with the workload as `/bin/workload` and a minimal /etc, and nothing else.
///
/// # Errors
/// When the workload hasn't been built or something can't be written.
pub fn workload_rootfs(root: &Path) -> Result<()> {
    for dir in DIRS {
        fs::create_dir_all(root.join(dir)).with_context(|| format!("make {dir} in {}", root.display()))?;
    }
    fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777))?;
    install(&crate::binary("workload")?, &root.join("bin/workload"))?;
    fs::write(root.join("etc/passwd"), PASSWD)?;
    fs::write(root.join("etc/group"), GROUP)?;
    for file in ["hosts", "hostname", "resolv.conf"] {
        fs::write(root.join("etc").join(file), "")?;
    }
    Ok(())
}

/// Debian's static busybox.
pub(crate) fn busybox() -> Result<std::path::PathBuf> {
    crate::need::find_program("busybox").context("busybox isn't installed: apt-get install busybox-static")
}

/// The names of busybox's applets, itself left out.
pub(crate) fn applets(busybox: &Path) -> Result<Vec<String>> {
    let list = crate::run(Command::new(busybox).arg("--list"))?.ok()?;
    Ok(list.stdout.lines().filter(|a| *a != "busybox").map(str::to_owned).collect())
}

/// A copy, not a hard link: a container may write to it.
fn install(from: &Path, to: &Path) -> Result<()> {
    fs::copy(from, to).with_context(|| format!("copy {} to {}", from.display(), to.display()))?;
    fs::set_permissions(to, fs::Permissions::from_mode(0o755)).context("make it executable")
}
