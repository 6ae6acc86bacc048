//! CVE-2024-45310: the same race, but where the runtime makes a missing mount target: an empty directory or file
//! anywhere on the host.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use integration_cve::Swap;

use crate::T;

// runc 1.1 of Debian 12 makes "made" on the host.
crate::attack!([corten Corten] (nothing_is_made_on_the_host));

/// Seen to fail with `open_or_make` calling `create_dir_all` on the path below the rootfs: "on the host: [\"made\"]".
fn nothing_is_made_on_the_host(t: &T<'_>) -> Result<()> {
    let outside = t.scope.make_dir("outside")?;
    let source = t.scope.make_dir("source")?;
    let volume = t.scope.make_dir("volume/dir")?.with_file_name("");
    symlink(&outside, volume.join("link"))?;
    let bundle = t.sh("true").mount("bind", &volume.to_string_lossy(), "/volume", &["bind"]);
    let mut bundle = bundle;
    for n in 0..8 {
        let destination = format!("/volume/dir/made/{n}");
        bundle = bundle.mount("bind", &source.to_string_lossy(), &destination, &["bind"]);
    }
    let bundle = bundle.write()?;
    let _swap = Swap::begin(&volume.join("dir"), &volume.join("link"))?;
    for _ in 0..30 {
        t.rt.run(&bundle)?;
        let made: Vec<_> = fs::read_dir(&outside)?.flatten().map(|e| e.file_name()).collect();
        ensure!(made.is_empty(), "on the host: {made:?}");
    }
    Ok(())
}
