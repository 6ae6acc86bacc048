//! What criu needs of the file system before it can mount a restored container's mounts.

use std::{
    fs,
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use corten_sys::mount;

use super::resolve;
use crate::{
    Result,
    error::Doing,
    plan::{Link, MountKind, Plan, c_path},
    steps::{
        mount::{inside, open_inside, show},
        target::{Make, is_directory, open_or_make},
    },
};

/// A bind mount's source that lies in the rootfs.
pub(crate) struct Moved {
    /// As config.json has it.
    pub(crate) source: PathBuf,
    /// The same without links: below the rootfs.
    pub(crate) place: PathBuf,
}

/// Mounts `source` on `target`, with what is mounted below it.
pub(crate) fn bind(source: &Path, target: &Path) -> Result<()> {
    let doing = || format!("bind mount {} on {}", source.display(), target.display());
    let tree = c_path(source).and_then(|path| mount::clone_tree_path(&path, true)).doing(doing)?;
    let target = fs::File::open(target).doing(doing)?;
    mount::move_mount(tree.as_fd(), target.as_fd()).doing(doing)
}

/// Makes what config.json's mounts are mounted on, as create does: criu doesn't. Bind mounts are mounted, since others
/// may be inside of them; what is on a tmpfs comes back with it. Returns where the sources that lie in the rootfs are,
/// found as create finds them: criu would follow their links wherever those lead to.
pub(crate) fn make_targets(plan: &Plan) -> Result<Vec<Moved>> {
    let root = fs::File::open(&plan.rootfs.path).doing(|| format!("open {}", plan.rootfs.path.display()))?;
    let (mut tmpfs, mut others) = (Vec::<PathBuf>::new(), Vec::<PathBuf>::new());
    let mut moved = Vec::new();
    for mount in &plan.mounts {
        let destination = show(&mount.destination);
        if is_below(Path::new(&destination), &tmpfs) {
            continue;
        }
        let doing = || format!("make mount target {destination}");
        let (source, recursive) = match &mount.kind {
            MountKind::Cgroup(_) | MountKind::Remount { .. } => continue,
            MountKind::Filesystem { name, .. } => {
                open_or_make(root.as_fd(), &mount.destination, Make::Directory).doing(doing)?;
                let list = if name.as_c_str() == c"tmpfs" { &mut tmpfs } else { &mut others };
                list.push(destination.into());
                continue;
            }
            // It is in the checkpoint, or the root file system, as a file.
            MountKind::Bind { source, link: Link::Copied, .. } if source.is_symlink() => continue,
            MountKind::Bind { source, recursive, .. } => (source, *recursive),
        };
        let tree = match inside(plan, mount) {
            Some(path) => {
                let operation = || format!("bind mount {} of the rootfs on {destination}", path.display());
                let place = resolve(&plan.rootfs.path, path).doing(operation)?;
                if [path, &place].iter().any(|path| is_below(path, &tmpfs) || is_below(path, &others)) {
                    let reason = "it is on another of the container's mounts, which only criu makes";
                    return Err(super::wrong(operation(), reason));
                }
                moved.push(Moved { source: source.clone(), place: plan.rootfs.path.join(place) });
                open_inside(root.as_fd(), path, mount, recursive)?
            }
            None => {
                let bind = || format!("bind mount {} on {destination}", source.display());
                c_path(source).and_then(|path| mount::clone_tree_path(&path, true)).doing(bind)?
            }
        };
        let directory = is_directory(tree.as_fd()).doing(doing)?;
        let make = if directory { Make::Directory } else { Make::File };
        let target = open_or_make(root.as_fd(), &mount.destination, make).doing(doing)?;
        mount::move_mount(tree.as_fd(), target.as_fd()).doing(doing)?;
        others.push(destination.into());
    }
    Ok(moved)
}

/// `path` is relative to the root.
fn is_below(path: &Path, mounts: &[PathBuf]) -> bool {
    let path = Path::new("/").join(path);
    mounts.iter().any(|above| path.starts_with(above))
}
