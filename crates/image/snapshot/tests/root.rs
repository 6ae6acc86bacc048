//! Layers, snapshots and the kernel's overlayfs together.
#![allow(clippy::unwrap_used, reason = "tests")]

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown};
use std::path::Path;
use std::thread;

use corten_layer::{ApplyOptions, Compression, ProduceOptions, Whiteouts, apply, produce};
use corten_snapshot::{Layering, Mount, Native, Overlay, OverlayOptions, Snapshotter};
use integration_support::require_root;
use nix::mount::{MsFlags, mount, umount};
use nix::sched::{CloneFlags, unshare};

/// Gives this thread mounts of its own, so that none is left behind whatever happens.
fn private_mounts() {
    unshare(CloneFlags::CLONE_NEWNS).unwrap();
    mount(None::<&str>, "/", None::<&str>, MsFlags::MS_REC | MsFlags::MS_PRIVATE, None::<&str>).unwrap();
}

fn perform(mounts: &[Mount], target: &Path) {
    for one in mounts {
        let mut flags = MsFlags::empty();
        let mut data = Vec::new();
        for option in &one.options {
            match option.as_str() {
                "ro" => flags |= MsFlags::MS_RDONLY,
                "rw" => {}
                "rbind" => flags |= MsFlags::MS_BIND | MsFlags::MS_REC,
                other => data.push(other),
            }
        }
        let data = data.join(",");
        mount(Some(&one.source), target, Some(one.fs_type.as_str()), flags, Some(data.as_str())).unwrap();
        if flags.contains(MsFlags::MS_BIND | MsFlags::MS_RDONLY) {
            let flags = flags | MsFlags::MS_REMOUNT;
            mount(None::<&str>, target, None::<&str>, flags, None::<&str>).unwrap();
        }
    }
}

/// Makes a layer of what `fill` puts into a directory.
fn layer(fill: impl FnOnce(&Path)) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    fill(directory.path());
    let mut blob = Vec::new();
    let options = ProduceOptions { compression: Compression::Zstd, ..ProduceOptions::default() };
    produce(directory.path(), &mut blob, &options).unwrap();
    blob
}

fn deletion(path: &Path) {
    nix::sys::stat::mknod(path, nix::sys::stat::SFlag::S_IFCHR, nix::sys::stat::Mode::empty(), 0).unwrap();
}

/// Three layers that add, replace and delete.
fn image() -> Vec<Vec<u8>> {
    vec![
        layer(|root| {
            fs::create_dir_all(root.join("etc/old")).unwrap();
            fs::write(root.join("etc/passwd"), "root").unwrap();
            fs::write(root.join("etc/old/file"), "old").unwrap();
            fs::write(root.join("becomes-directory"), "file").unwrap();
            fs::create_dir(root.join("tmp")).unwrap();
            fs::set_permissions(root.join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
        }),
        layer(|root| {
            fs::create_dir_all(root.join("etc")).unwrap();
            deletion(&root.join("etc/old"));
            fs::create_dir(root.join("becomes-directory")).unwrap();
            fs::write(root.join("becomes-directory/file"), "in it").unwrap();
            fs::write(root.join("setuid"), "x").unwrap();
            chown(root.join("setuid"), Some(1000), Some(1000)).unwrap();
            fs::set_permissions(root.join("setuid"), fs::Permissions::from_mode(0o4755)).unwrap();
        }),
        layer(|root| {
            fs::create_dir_all(root.join("etc/old")).unwrap();
            corten_sys::xattr::lset(&root.join("etc/old"), b"trusted.overlay.opaque", b"y").unwrap();
            fs::write(root.join("etc/old/new"), "new").unwrap();
            fs::write(root.join("etc/passwd"), "root and more").unwrap();
        }),
    ]
}

fn check_image(root: &Path) {
    let read = |name: &str| fs::read_to_string(root.join(name)).unwrap();
    assert_eq!(read("etc/passwd"), "root and more");
    assert_eq!(read("becomes-directory/file"), "in it");
    let names: Vec<_> =
        fs::read_dir(root.join("etc/old")).unwrap().map(|item| item.unwrap().file_name()).collect();
    assert_eq!(names, ["new"]);
    assert_eq!(fs::metadata(root.join("tmp")).unwrap().mode() & 0o7777, 0o1777);
    let setuid = fs::metadata(root.join("setuid")).unwrap();
    assert_eq!((setuid.mode() & 0o7777, setuid.uid()), (0o4755, 1000));
}

/// Unpacks as the image library does: side by side where the driver can, else one after another.
fn unpack(snapshots: &dyn Snapshotter, blobs: &[Vec<u8>]) -> String {
    let name = |index: usize| format!("chain-{index}");
    match snapshots.layering() {
        Layering::Stacked { user_xattr } => {
            let whiteouts = if user_xattr { Whiteouts::OverlayUser } else { Whiteouts::Overlay };
            let options = ApplyOptions { whiteouts, ..ApplyOptions::default() };
            let pending: Vec<_> = thread::scope(|scope| {
                let options = &options;
                let workers: Vec<_> = blobs
                    .iter()
                    .enumerate()
                    .map(|(index, blob)| {
                        scope.spawn(move || {
                            let key = format!("unpack-{index}");
                            snapshots.prepare(&key, None).unwrap();
                            let directory = snapshots.directory(&key).unwrap();
                            apply(blob.as_slice(), &directory, options).unwrap().pending
                        })
                    })
                    .collect();
                workers.into_iter().map(|worker| worker.join().unwrap()).collect()
            });
            for (index, pending) in pending.into_iter().enumerate() {
                let parent = index.checked_sub(1).map(name);
                let key = format!("unpack-{index}");
                if let Some(parent) = &parent {
                    let lowers = snapshots.lowers(parent).unwrap();
                    pending.settle(&snapshots.directory(&key).unwrap(), &lowers).unwrap();
                }
                snapshots.commit_onto(&name(index), &key, parent.as_deref()).unwrap();
            }
        }
        Layering::Merged => {
            let options = ApplyOptions { whiteouts: Whiteouts::Merge, ..ApplyOptions::default() };
            for (index, blob) in blobs.iter().enumerate() {
                let parent = index.checked_sub(1).map(name);
                snapshots.prepare("unpack", parent.as_deref()).unwrap();
                let directory = snapshots.directory("unpack").unwrap();
                assert!(apply(blob.as_slice(), &directory, &options).unwrap().pending.is_empty());
                snapshots.commit(&name(index), "unpack").unwrap();
            }
        }
    }
    name(blobs.len() - 1)
}

fn a_container_sees_its_image(snapshots: &dyn Snapshotter, directory: &Path) {
    private_mounts();
    let top = unpack(snapshots, &image());
    let rootfs = directory.join("rootfs");
    fs::create_dir(&rootfs).unwrap();

    perform(&snapshots.view("view", Some(&top)).unwrap(), &rootfs);
    check_image(&rootfs);
    let error = fs::write(rootfs.join("new"), "x").unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    umount(&rootfs).unwrap();

    perform(&snapshots.prepare("container", Some(&top)).unwrap(), &rootfs);
    check_image(&rootfs);
    let before = snapshots.usage("container").unwrap();
    fs::write(rootfs.join("written"), vec![1; 200_000]).unwrap();
    fs::remove_file(rootfs.join("etc/passwd")).unwrap();
    let after = snapshots.usage("container").unwrap();
    assert!((150_000..300_000).contains(&(after.bytes - before.bytes)), "{before:?} {after:?}");
    umount(&rootfs).unwrap();

    // What a container leaves can become a layer of the next image.
    snapshots.commit("committed", "container").unwrap();
    perform(&snapshots.prepare("next", Some("committed")).unwrap(), &rootfs);
    assert!(rootfs.join("written").exists() && !rootfs.join("etc/passwd").exists());
    umount(&rootfs).unwrap();

    for key in ["next", "committed", "view", "chain-2", "chain-1", "chain-0"] {
        snapshots.remove(key).unwrap();
    }
    assert!(snapshots.walk().is_empty());
    snapshots.cleanup().unwrap();
}

#[test]
fn a_container_sees_its_image_on_overlay() {
    if !require_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Overlay::open(directory.path().join("s")).unwrap();
    a_container_sees_its_image(&snapshots, directory.path());
    // Nothing but the lock and the records' directory is left.
    assert_eq!(fs::read_dir(directory.path().join("s")).unwrap().count(), 2);
}

#[test]
fn a_container_sees_its_image_on_native() {
    if !require_root() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Native::open(directory.path().join("s")).unwrap();
    a_container_sees_its_image(&snapshots, directory.path());
    assert_eq!(fs::read_dir(directory.path().join("s")).unwrap().count(), 2);
}

#[test]
fn a_page_holds_a_hundred_layers() {
    if !require_root() {
        return;
    }
    private_mounts();
    // A root as long as the default one, `/var/lib/corten/snapshots`.
    let directory =
        tempfile::Builder::new().prefix("corten-snapshots-").rand_bytes(3).tempdir_in("/tmp").unwrap();
    let snapshots =
        Overlay::open_with(directory.path(), OverlayOptions { volatile: true, ..OverlayOptions::default() })
            .unwrap();
    let mut parent: Option<String> = None;
    for index in 0..100 {
        snapshots.prepare("unpack", None).unwrap();
        fs::write(snapshots.directory("unpack").unwrap().join(index.to_string()), "").unwrap();
        let name = format!("layer-{index}");
        snapshots.commit_onto(&name, "unpack", parent.as_deref()).unwrap();
        parent = Some(name);
    }
    let mounts = snapshots.prepare("container", parent.as_deref()).unwrap();
    let rootfs = tempfile::tempdir().unwrap();
    perform(&mounts, rootfs.path());
    assert_eq!(fs::read_dir(rootfs.path()).unwrap().count(), 100);
    umount(rootfs.path()).unwrap();
}

#[test]
fn a_deletion_in_a_container_is_a_whiteout_in_its_layer() {
    if !require_root() {
        return;
    }
    private_mounts();
    let directory = tempfile::tempdir().unwrap();
    let snapshots = Overlay::open(directory.path().join("s")).unwrap();
    let top = unpack(&snapshots, &image());
    let rootfs = directory.path().join("rootfs");
    fs::create_dir(&rootfs).unwrap();
    perform(&snapshots.prepare("container", Some(&top)).unwrap(), &rootfs);
    fs::remove_file(rootfs.join("etc/passwd")).unwrap();
    umount(&rootfs).unwrap();
    let upper = snapshots.directory("container").unwrap();
    assert!(fs::symlink_metadata(upper.join("etc/passwd")).unwrap().file_type().is_char_device());
    // As a layer, it deletes for others too.
    let mut blob = Vec::new();
    produce(&upper, &mut blob, &ProduceOptions::default()).unwrap();
    snapshots.prepare("unpack", None).unwrap();
    apply(blob.as_slice(), &snapshots.directory("unpack").unwrap(), &ApplyOptions::default()).unwrap();
    snapshots.commit_onto("without", "unpack", Some(&top)).unwrap();
    perform(&snapshots.view("view", Some("without")).unwrap(), &rootfs);
    assert!(!rootfs.join("etc/passwd").exists() && rootfs.join("etc/old/new").exists());
    umount(&rootfs).unwrap();
}
