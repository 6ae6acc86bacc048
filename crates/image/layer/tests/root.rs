//! What only root can unpack: other owners, devices, capabilities, overlayfs' marks.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;

use common::{Place, Tar, list, merged};
use corten_layer::{ApplyOptions, ProduceOptions, Whiteouts, apply, produce};
use corten_sys::xattr;
use integration_support::require_root;
use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use tar::{EntryType, Header};

fn owned(kind: EntryType, name: &str, mode: u32, uid: u64, gid: u64) -> Header {
    let mut header = Tar::header(kind, name.as_bytes(), 0);
    header.set_mode(mode);
    header.set_uid(uid);
    header.set_gid(gid);
    header
}

fn is_whiteout(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|stat| stat.file_type().is_char_device() && stat.rdev() == 0)
}

fn is_opaque(path: &Path) -> bool {
    xattr::lget(path, b"trusted.overlay.opaque").unwrap().as_deref() == Some(b"y")
}

#[test]
fn owners_setuid_and_capabilities_survive_one_another() {
    if !require_root() {
        return;
    }
    // VFS_CAP_REVISION_2 with CAP_NET_RAW, effective: what ping has.
    let capability = [1u8, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut long = owned(EntryType::Regular, "big-ids", 0o644, 0, 0);
    long.set_uid(3_000_000_000);
    let mut link = owned(EntryType::Symlink, "link", 0o777, 1000, 1001);
    link.as_old_mut().linkname[..6].copy_from_slice(b"setuid");
    let archive = Tar::new()
        .entry(owned(EntryType::Regular, "setuid", 0o6755, 1000, 1001), b"")
        .pax(&[("SCHILY.xattr.security.capability", &capability)])
        .entry(owned(EntryType::Regular, "ping", 0o755, 1000, 0), b"")
        .entry(owned(EntryType::Directory, "setgid", 0o2775, 0, 50), b"")
        .entry(owned(EntryType::Regular, "setgid/file", 0o644, 0, 0), b"")
        .entry(link, b"")
        .entry(long, b"")
        .end();
    for options in [ApplyOptions::default(), merged()] {
        let place = Place::new();
        place.apply(&archive, &options).unwrap();
        let stat = |name: &str| {
            let stat = fs::symlink_metadata(place.target().join(name)).unwrap();
            (stat.mode() & 0o7777, stat.uid(), stat.gid())
        };
        assert_eq!(stat("setuid"), (0o6755, 1000, 1001));
        assert_eq!(stat("ping"), (0o755, 1000, 0));
        assert_eq!(stat("setgid"), (0o2775, 0, 50));
        assert_eq!(stat("setgid/file"), (0o644, 0, 0));
        assert_eq!(stat("link"), (0o777, 1000, 1001));
        assert_eq!(stat("big-ids").1, 3_000_000_000);
        let found = xattr::lget(&place.target().join("ping"), b"security.capability").unwrap();
        assert_eq!(found.as_deref(), Some(&capability[..]));
    }
}

#[test]
fn devices_and_fifos_are_made_inside_and_not_opened() {
    if !require_root() {
        return;
    }
    let device = |kind, name, major, minor| {
        let mut header = owned(kind, name, 0o660, 0, 6);
        header.set_device_major(major).unwrap();
        header.set_device_minor(minor).unwrap();
        header
    };
    let archive = Tar::new()
        .entry(device(EntryType::Char, "null", 1, 3), b"")
        .entry(device(EntryType::Block, "disk", 8, 300), b"")
        .entry(owned(EntryType::Fifo, "fifo", 0o622, 7, 8), b"")
        // Written through, they would reach the host's devices, or hang.
        .file("null", "replaced")
        .end();
    let place = Place::new();
    place.apply(&archive, &ApplyOptions::default()).unwrap();
    assert_eq!(place.read("null"), "replaced");
    let disk = fs::symlink_metadata(place.target().join("disk")).unwrap();
    assert!(disk.file_type().is_block_device());
    assert_eq!((disk.rdev(), disk.mode() & 0o7777, disk.gid()), (makedev(8, 300), 0o660, 6));
    let fifo = fs::symlink_metadata(place.target().join("fifo")).unwrap();
    assert!(fifo.file_type().is_fifo());
    assert_eq!((fifo.mode() & 0o7777, fifo.uid(), fifo.gid()), (0o622, 7, 8));
}

#[test]
fn deletions_become_overlays_marks() {
    if !require_root() {
        return;
    }
    let place = Place::new();
    let archive = Tar::new()
        .directory("etc")
        .whiteout("etc/.wh.passwd")
        .whiteout("etc/.wh..wh..opq")
        // Deleted and created anew in one layer, in both orders.
        .whiteout(".wh.anew")
        .directory("anew")
        .directory("anew-too")
        .whiteout(".wh.anew-too")
        .whiteout(".wh.file")
        .file("file", "x")
        .file("file-too", "x")
        .whiteout(".wh.file-too")
        // In directories that aren't listed.
        .whiteout("not/listed/.wh.gone")
        .whiteout("not/opaque/.wh..wh..opq")
        .directory("plain")
        .end();
    let applied = place.apply(&archive, &ApplyOptions::default()).unwrap();
    let at = |name: &str| place.target().join(name);
    assert!(is_whiteout(&at("etc/passwd")) && is_whiteout(&at("not/listed/gone")));
    for name in ["etc", "anew", "anew-too", "not/opaque"] {
        assert!(is_opaque(&at(name)), "{name}");
    }
    assert!(!is_opaque(&at("plain")) && !is_opaque(&at("not/listed")));
    assert_eq!((place.read("file"), place.read("file-too")), ("x".into(), "x".into()));
    assert_eq!(applied.entries, 14);
    assert!(!place.names().iter().any(|name| name.contains(".wh.")));
}

#[test]
fn a_link_to_a_deletion_is_refused() {
    if !require_root() {
        return;
    }
    let archive = Tar::new().whiteout(".wh.f").hard_link("g", "f").end();
    let error = Place::new().apply(&archive, &ApplyOptions::default()).unwrap_err();
    assert!(error.to_string().contains("\"g\""), "{error}");
}

#[test]
fn a_full_file_system_is_an_error_that_names_the_entry() {
    if !require_root() {
        return;
    }
    // In a mount namespace of this thread's own, so that nothing is left behind.
    nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS).unwrap();
    let flags = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
    nix::mount::mount(None::<&str>, "/", None::<&str>, flags, None::<&str>).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let none = nix::mount::MsFlags::empty();
    nix::mount::mount(Some("tmpfs"), directory.path(), Some("tmpfs"), none, Some("size=64k")).unwrap();
    // The writer's thread is born into this namespace too.
    let archive = Tar::new().file("small", "x").file("large", &"x".repeat(1 << 20)).end();
    match apply(archive.as_slice(), directory.path(), &ApplyOptions::default()) {
        Err(corten_layer::Error::Entry { operation, entry, source }) => {
            assert_eq!((operation, entry.as_str()), ("write the file", "large"));
            assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
        }
        other => panic!("{other:?}"),
    }
    nix::mount::umount(directory.path()).unwrap();
}

#[test]
fn an_upper_directory_comes_back_as_it_was() {
    if !require_root() {
        return;
    }
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("d/deep")).unwrap();
    fs::write(at("d/file"), "content").unwrap();
    chown(at("d/file"), Some(1234), Some(2_500_000)).unwrap();
    fs::set_permissions(at("d/file"), fs::Permissions::from_mode(0o4751)).unwrap();
    fs::hard_link(at("d/file"), at("d/deep/link")).unwrap();
    symlink("../d/file", at("symlink")).unwrap();
    lchown(at("symlink"), Some(5), Some(6)).unwrap();
    mknod(&at("device"), SFlag::S_IFCHR, Mode::from_bits_truncate(0o600), makedev(10, 200)).unwrap();
    mknod(&at("fifo"), SFlag::S_IFIFO, Mode::from_bits_truncate(0o600), 0).unwrap();
    xattr::lset(&at("d/file"), b"trusted.test", b"\n\0=").unwrap();
    xattr::lset(&at("d"), b"user.test", b"").unwrap();
    xattr::lset(&at("symlink"), b"trusted.test", b"on a link").unwrap();
    mknod(&at("d/deleted"), SFlag::S_IFCHR, Mode::empty(), 0).unwrap();
    xattr::lset(&at("d/deep"), b"trusted.overlay.opaque", b"y").unwrap();
    fs::set_permissions(at("d"), fs::Permissions::from_mode(0o1777)).unwrap();

    let mut blob = Vec::new();
    produce(source.path(), &mut blob, &ProduceOptions::default()).unwrap();
    let target = tempfile::tempdir().unwrap();
    let applied = apply(blob.as_slice(), target.path(), &ApplyOptions::default()).unwrap();
    assert!(applied.pending.is_empty());
    // A whiteout has no attributes but its being there.
    let seen = |root: &Path| {
        let mut seen = list(root);
        seen.insert("d/deleted".into(), is_whiteout(&root.join("d/deleted")).to_string());
        seen
    };
    assert_eq!(seen(target.path()), seen(source.path()));
    // Our own marks don't travel as attributes.
    let options = ProduceOptions { whiteouts: Whiteouts::Merge, ..ProduceOptions::default() };
    let mut blob = Vec::new();
    produce(source.path(), &mut blob, &options).unwrap();
    let plain = tempfile::tempdir().unwrap();
    apply(blob.as_slice(), plain.path(), &merged()).unwrap();
    assert!(!is_opaque(&plain.path().join("d/deep")));
}
