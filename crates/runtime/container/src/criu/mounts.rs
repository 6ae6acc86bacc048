//! What criu needs of the file system before it can mount a restored container's mounts.

use std::{
    fs, io,
    os::fd::{AsFd, BorrowedFd},
    path::{Path, PathBuf},
};

use corten_sys::mount;

use super::resolve;
use crate::{
    Result,
    error::Doing,
    plan::{Link, Mount, MountKind, Plan, c_path},
    steps::{
        mount::{inside, open_inside, show},
        target::{Make, is_directory, is_link, open_or_make},
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
            MountKind::Bind { source, recursive, link } => {
                let operation = || format!("bind mount {} on {destination}", source.display());
                match link {
                    Link::Followed => {}
                    _ if !source_is_link(root.as_fd(), plan, mount, source).doing(operation)? => {}
                    // It is in the checkpoint, or the root file system, as a file.
                    Link::Copied => continue,
                    Link::Mounted => {
                        let reason = "it is a symbolic link to be mounted itself (src-nofollow), and criu would \
                                      mount what it leads to";
                        return Err(super::wrong(operation(), reason));
                    }
                }
                (source, *recursive)
            }
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
                open_inside(root.as_fd(), path, Link::Followed)
                    .and_then(|place| mount::clone_tree(place.as_fd(), c"", recursive))
                    .doing(operation)?
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

/// Whether a bind mount's source is a symbolic link, as create sees it.
fn source_is_link(root: BorrowedFd<'_>, plan: &Plan, mount: &Mount, source: &Path) -> io::Result<bool> {
    match inside(plan, mount) {
        Some(path) => is_link(open_inside(root, path, Link::Mounted)?.as_fd()),
        None => Ok(source.is_symlink()),
    }
}

/// `path` is relative to the root.
fn is_below(path: &Path, mounts: &[PathBuf]) -> bool {
    let path = Path::new("/").join(path);
    mounts.iter().any(|above| path.starts_with(above))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use serde_json::{Value, json};

    use super::*;
    use crate::plan::Circumstances;

    /// With one bind mount, of what is called `source`.
    fn plan(rootfs: &Path, source: &Path, option: &str) -> Plan {
        let mut config: Value =
            serde_json::from_str(include_str!("../plan/golden/kubernetes.json")).expect("JSON");
        config["root"]["path"] = json!(rootfs);
        let options = ["bind", option];
        config["mounts"] =
            json!([{"type": "bind", "source": source, "destination": "/to", "options": options}]);
        let spec = serde_json::from_value(config).expect("a spec");
        Plan::new(Path::new("/bundle"), &spec, Circumstances::default()).expect("a plan")
    }

    #[test]
    fn links_are_looked_at_as_create_does() {
        let (rootfs, outside) =
            (tempfile::tempdir().expect("tempdir"), tempfile::tempdir().expect("tempdir"));
        symlink("x", outside.path().join("link")).expect("symlink");
        // On the host `evil` leads outside, from inside to a directory with a link of that name.
        symlink(outside.path(), rootfs.path().join("evil")).expect("symlink");
        let inside = rootfs.path().join(outside.path().strip_prefix("/").expect("absolute"));
        fs::create_dir_all(&inside).expect("mkdir");
        symlink("y", inside.join("link")).expect("symlink");
        symlink("y", inside.join("only-inside")).expect("symlink");
        let in_rootfs = rootfs.path().join("evil/only-inside");
        for source in [outside.path().join("link"), in_rootfs.clone()] {
            let error = make_targets(&plan(rootfs.path(), &source, "src-nofollow")).err().expect("refused");
            let text = error.to_string();
            assert!(text.contains("src-nofollow") && text.contains("/to"), "{text}");
        }
        // Nothing to mount for a copied one.
        assert!(make_targets(&plan(rootfs.path(), &in_rootfs, "copy-symlink")).expect("made").is_empty());
        assert!(!rootfs.path().join("to").exists());
    }
}
