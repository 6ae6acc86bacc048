//! CVE-2021-30465: two containers share a volume. While one is created, the other swaps a mount target in it for a
//! link, and the mount lands on a path of the host.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Result, ensure};
use integration_cve::Swap;

use crate::T;

crate::attack!([corten Corten] (a_swapped_target_stays_inside));

/// Seen to fail with `open_or_make` opening the path below the rootfs by name, after a look at it: "the mount is
/// nowhere in the container".
fn a_swapped_target_stays_inside(t: &T<'_>) -> Result<()> {
    let outside = t.scope.make_dir("outside")?;
    let volume = t.scope.make_dir("volume/target")?.with_file_name("");
    symlink(&outside, volume.join("link"))?;
    let shared = volume.to_string_lossy().into_owned();
    let bundle = t.sh("grep -c ' - tmpfs marker ' /proc/self/mountinfo");
    let bundle = bundle.mount("bind", &shared, "/volume", &["bind"]);
    let bundle = bundle.mount("tmpfs", "marker", "/volume/target", &[]).write()?;
    let _swap = Swap::begin(&volume.join("target"), &volume.join("link"))?;
    let mut mounted = 0;
    for _ in 0..30 {
        let finished = t.rt.run(&bundle)?;
        // A race that is noticed may end in an error; a container that runs has its mount.
        if finished.status.success() || finished.stdout == "0\n" {
            ensure!(finished.stdout == "1\n", "the mount is nowhere in the container: {finished:?}");
            mounted += 1;
        }
    }
    ensure!(mounted > 0, "not one container came up");
    ensure!(fs::read_dir(&outside)?.next().is_none(), "something was made on the host");
    Ok(())
}
