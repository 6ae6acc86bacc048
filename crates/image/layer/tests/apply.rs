//! What honest layers become. Needs no privileges: everything belongs to whoever runs the tests.
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use common::{Place, Tar, gzip, list, merged};
use corten_layer::{ApplyOptions, Compression, ProduceOptions, Whiteouts, apply, produce};
use tar::{EntryType, Header};

#[test]
fn every_compression_gives_the_same_tree_and_diff_id() {
    let archive = Tar::new().directory("d").file("d/f", &"content".repeat(100_000)).end();
    let plain = Place::new();
    let applied = plain.merge(&archive).unwrap();
    assert_eq!((applied.compression, applied.entries), (Compression::None, 2));
    assert_eq!((applied.bytes, applied.compressed_bytes), (archive.len() as u64, archive.len() as u64));
    let (first, second) = archive.split_at(archive.len() / 3);
    let frame = |data: &[u8]| zstd::encode_all(data, 0).unwrap();
    let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0, 1, 2, 3][..], &frame(&archive)].concat();
    for (compressed, kind) in [
        (gzip(&archive), Compression::Gzip),
        ([gzip(first), gzip(second)].concat(), Compression::Gzip),
        (frame(&archive), Compression::Zstd),
        ([frame(first), frame(second)].concat(), Compression::Zstd),
        (skippable, Compression::Zstd),
    ] {
        let place = Place::new();
        let other = place.merge(&compressed).unwrap();
        assert_eq!(other.compression, kind);
        assert_eq!((&other.diff_id, other.bytes), (&applied.diff_id, applied.bytes));
        assert_eq!(other.compressed_bytes, compressed.len() as u64);
        assert_eq!(list(&place.target()), list(&plain.target()));
    }
}

#[test]
fn modes_are_set_whatever_the_umask() {
    let place = Place::new();
    let mut archive = Tar::new();
    for (name, mode) in [("a", 0o666), ("b", 0o4755), ("c", 0o2711), ("d", 0o1777), ("e", 0)] {
        let mut header = Tar::header(EntryType::Regular, name.as_bytes(), 0);
        header.set_mode(mode);
        archive = archive.entry(header, b"");
        let mut header = Tar::header(EntryType::Directory, format!("dir-{name}").as_bytes(), 0);
        header.set_mode(mode);
        archive = archive.entry(header, b"");
    }
    place.merge(&archive.end()).unwrap();
    for (name, mode) in [("a", 0o666), ("b", 0o4755), ("c", 0o2711), ("d", 0o1777), ("e", 0)] {
        for name in [name.to_owned(), format!("dir-{name}")] {
            let metadata = fs::metadata(place.target().join(&name)).unwrap();
            assert_eq!(metadata.mode() & 0o7777, mode, "{name}");
        }
    }
}

#[test]
fn times_of_directories_survive_what_is_put_into_them() {
    let place = Place::new();
    let archive = Tar::new()
        .directory("d")
        .file("d/a", "")
        .directory("d/e")
        .file("d/e/x", "")
        .symlink("d/s", "a")
        .end();
    place.merge(&archive).unwrap();
    for name in ["d", "d/a", "d/e", "d/e/x", "d/s"] {
        let metadata = fs::symlink_metadata(place.target().join(name)).unwrap();
        assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (1_000_000_000, 0), "{name}");
    }
}

#[test]
fn blank_numbers_are_zero() {
    let place = Place::new();
    let mut header = Tar::header(EntryType::Regular, b"f", 4);
    for field in [108..116, 116..124, 136..148, 329..337, 337..345] {
        header.as_mut_bytes()[field].fill(0);
    }
    header.as_mut_bytes()[329..337].fill(b' ');
    header.set_uid(fs::metadata(place.target()).unwrap().uid().into());
    header.set_cksum();
    place.merge(&Tar::new().entry(header, b"text").end()).unwrap();
    let metadata = fs::metadata(place.target().join("f")).unwrap();
    assert_eq!((metadata.gid(), metadata.mtime(), metadata.len()), (0, 0, 4));
}

#[test]
fn pax_overrides_the_header() {
    let place = Place::new();
    let long = format!("{}/file", "directory".repeat(20));
    let archive = Tar::new()
        .pax(&[("path", long.as_bytes()), ("mtime", b"-1.5"), ("size", b"5")])
        .entry(Tar::header(EntryType::Regular, b"short", 0), b"hello")
        .pax(&[("linkpath", long.as_bytes())])
        .link(EntryType::Symlink, "link", "x")
        .end();
    place.merge(&archive).unwrap();
    assert_eq!(place.read(&long), "hello");
    let metadata = fs::metadata(place.target().join(&long)).unwrap();
    assert_eq!((metadata.mtime(), metadata.mtime_nsec()), (-2, 500_000_000));
    assert_eq!(fs::read_link(place.target().join("link")).unwrap().to_str(), Some(long.as_str()));
}

#[test]
fn gnu_long_names_are_read() {
    let place = Place::new();
    let (name, target) = ("n".repeat(200), "t/".repeat(100));
    let archive = Tar::new()
        .entry(
            Tar::header(EntryType::GNULongLink, b"././@LongLink", target.len() as u64 + 1),
            format!("{target}\0").as_bytes(),
        )
        .entry(
            Tar::header(EntryType::GNULongName, b"././@LongLink", name.len() as u64 + 1),
            format!("{name}\0").as_bytes(),
        )
        .symlink("short", "short")
        .end();
    place.merge(&archive).unwrap();
    assert_eq!(fs::read_link(place.target().join(name)).unwrap().to_str(), Some(target.as_str()));
}

#[test]
fn gnu_sparse_files_have_holes() {
    let place = Place::new();
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..6].copy_from_slice(b"sparse");
    header.set_entry_type(EntryType::GNUSparse);
    header.set_mode(0o644);
    header.set_uid(u64::from(nix::unistd::geteuid().as_raw()));
    header.set_gid(u64::from(nix::unistd::getegid().as_raw()));
    header.set_mtime(0);
    header.set_size(10);
    let gnu = header.as_gnu_mut().unwrap();
    gnu.set_real_size(10 << 20);
    for (extent, (offset, length)) in gnu.sparse.iter_mut().zip([(1 << 20, 4), (5 << 20, 6)]) {
        extent.offset.copy_from_slice(format!("{offset:011o}\0").as_bytes());
        extent.numbytes.copy_from_slice(format!("{length:011o}\0").as_bytes());
    }
    let archive = Tar::new().entry(header.clone(), b"dataxmored").file("after", "x").end();
    place.merge(&archive).unwrap();
    let content = fs::read(place.target().join("sparse")).unwrap();
    assert_eq!(content.len(), 10 << 20);
    assert_eq!((&content[1 << 20..][..4], &content[5 << 20..][..6]), (&b"data"[..], &b"xmored"[..]));
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 10);
    assert!(fs::metadata(place.target().join("sparse")).unwrap().blocks() * 512 < 1 << 20);
    // Overlapping extents, or fewer bytes than promised.
    header.set_size(11);
    assert!(Place::new().merge(&Tar::new().entry(header, b"dataxmoredx").end()).is_err());
}

#[test]
fn each_kind_replaces_each_other_kind() {
    type Add = fn(Tar) -> Tar;
    let kinds: [(&str, Add); 4] = [
        ("file", |tar| tar.file("x", "new")),
        ("directory", |tar| tar.directory("x")),
        ("symlink", |tar| tar.symlink("x", "other")),
        ("hard link", |tar| tar.hard_link("x", "other")),
    ];
    let shape = |place: &Place| {
        let metadata = fs::symlink_metadata(place.target().join("x")).unwrap();
        (metadata.file_type(), metadata.len(), metadata.nlink())
    };
    for (new_name, new) in kinds {
        let alone = Place::new();
        alone.merge(&new(Tar::new().file("other", "o")).end()).unwrap();
        for (old_name, old) in kinds {
            let place = Place::new();
            place.merge(&old(Tar::new().file("other", "o")).end()).unwrap();
            if old_name == "directory" && new_name != "directory" {
                fs::create_dir_all(place.target().join("x/deep/er")).unwrap();
            }
            place.merge(&new(Tar::new()).end()).unwrap();
            assert_eq!(shape(&place), shape(&alone), "{new_name} over {old_name}");
            assert_eq!(place.read("other"), "o");
        }
    }
}

#[test]
fn a_file_is_replaced_not_rewritten() {
    let place = Place::new();
    place.merge(&Tar::new().file("a", "old").hard_link("b", "a").end()).unwrap();
    place.merge(&Tar::new().file("a", "new").end()).unwrap();
    assert_eq!((place.read("a"), place.read("b")), ("new".into(), "old".into()));
}

#[test]
fn merged_whiteouts_delete_what_is_below_only() {
    let lower = Tar::new()
        .directory("d")
        .file("d/old", "")
        .directory("d/sub")
        .file("d/sub/old", "")
        .directory("gone")
        .file("gone/x", "")
        .file("f", "")
        .end();
    let place = Place::new();
    place.merge(&lower).unwrap();
    let upper = Tar::new()
        .file("d/sub/new", "")
        .whiteout("d/.wh..wh..opq")
        .file("d/new", "")
        .whiteout(".wh.gone")
        .whiteout(".wh.f")
        .file("f", "again")
        .whiteout(".wh.never-there")
        .whiteout("not/there/.wh.x")
        .whiteout(".wh..wh.plnk")
        .end();
    place.merge(&upper).unwrap();
    assert_eq!(place.names(), ["d", "d/new", "d/sub", "d/sub/new", "f"]);
    // Listed before its own whiteout, the same layer's file stays.
    place.merge(&Tar::new().file("f", "kept").whiteout(".wh.f").end()).unwrap();
    assert_eq!(place.read("f"), "kept");
}

#[test]
fn what_a_layer_borrows_is_settled_from_below() {
    let place = Place::new();
    let lower = tempfile::tempdir().unwrap();
    fs::create_dir_all(lower.path().join("tmp/deep")).unwrap();
    fs::set_permissions(lower.path().join("tmp"), fs::Permissions::from_mode(0o1777)).unwrap();
    fs::write(lower.path().join("tmp/deep/file"), "below").unwrap();
    fs::set_permissions(lower.path().join("tmp/deep/file"), fs::Permissions::from_mode(0o640)).unwrap();
    fs::set_permissions(lower.path(), fs::Permissions::from_mode(0o711)).unwrap();
    let options = ApplyOptions::default();
    let archive = Tar::new().file("tmp/own", "").hard_link("link", "tmp/deep/file").end();
    let applied = place.apply(&archive, &options).unwrap();
    assert!(!applied.pending.is_empty());
    assert_eq!(place.names(), ["tmp", "tmp/own"]);
    applied.pending.settle(&place.target(), &[lower.path()]).unwrap();
    assert_eq!(place.names(), ["link", "tmp", "tmp/deep", "tmp/deep/file", "tmp/own"]);
    let metadata = |name: &str| fs::metadata(place.target().join(name)).unwrap();
    assert_eq!(metadata("tmp").mode() & 0o7777, 0o1777);
    assert_eq!(metadata("").mode() & 0o7777, 0o711);
    assert_eq!(
        (metadata("link").ino(), metadata("link").mode() & 0o777),
        (metadata("tmp/deep/file").ino(), 0o640)
    );
    assert_eq!(metadata("tmp").mtime(), fs::metadata(lower.path().join("tmp")).unwrap().mtime());
    assert_eq!(place.read("link"), "below");
    // The same with the lower layer at hand, and without it anywhere.
    let other = Place::new();
    let options = ApplyOptions { lowers: vec![lower.path().to_owned()], ..options };
    assert!(other.apply(&archive, &options).unwrap().pending.is_empty());
    assert_eq!(list(&other.target()), list(&place.target()));
    let pending =
        Place::new().apply(&Tar::new().hard_link("a", "b").end(), &ApplyOptions::default()).unwrap().pending;
    let error = pending.settle(&place.target(), &[lower.path()]).unwrap_err();
    assert!(error.to_string().contains("\"b\" is in no layer"), "{error}");
}

#[test]
fn overlay_marks_never_come_from_a_layer() {
    let place = Place::new();
    let archive = Tar::new()
        .pax(&[
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
            ("SCHILY.xattr.user.overlay.opaque", b"y"),
            ("SCHILY.xattr.user.mine", b"a\nb\0c"),
        ])
        .directory("d")
        .end();
    place.merge(&archive).unwrap();
    let names = corten_sys::xattr::llist(&place.target().join("d")).unwrap();
    assert!(names.iter().all(|name| !name.windows(8).any(|part| part == b".overlay")), "{names:?}");
    if !names.is_empty() {
        let value = corten_sys::xattr::lget(&place.target().join("d"), b"user.mine").unwrap();
        assert_eq!(value.as_deref(), Some(&b"a\nb\0c"[..]));
    }
}

#[test]
fn production_is_reproducible_and_comes_back_the_same() {
    let source = tempfile::tempdir().unwrap();
    let at = |name: &str| source.path().join(name);
    fs::create_dir_all(at("b/c")).unwrap();
    fs::write(at("b/file"), "content".repeat(1000)).unwrap();
    fs::write(at("b").join("n".repeat(150)), "").unwrap();
    fs::hard_link(at("b/file"), at("a-link")).unwrap();
    symlink("t".repeat(150), at("symlink")).unwrap();
    fs::set_permissions(at("b/c"), fs::Permissions::from_mode(0o1755)).unwrap();
    let _ = corten_sys::xattr::lset(&at("b/file"), b"user.test", b"with\nnewline");
    for compression in [Compression::None, Compression::Gzip, Compression::Zstd] {
        let options =
            ProduceOptions { compression, whiteouts: Whiteouts::Merge, ..ProduceOptions::default() };
        let (mut blob, mut again) = (Vec::new(), Vec::new());
        let produced = produce(source.path(), &mut blob, &options).unwrap();
        produce(source.path(), &mut again, &options).unwrap();
        assert_eq!(blob, again);
        assert_eq!((produced.size, Compression::detect(&blob)), (blob.len() as u64, compression));
        let target = tempfile::tempdir().unwrap();
        let applied = apply(blob.as_slice(), target.path(), &merged()).unwrap();
        assert_eq!((applied.diff_id, applied.bytes), (produced.diff_id, produced.bytes));
        assert_eq!(applied.entries, produced.entries);
        assert_eq!(list(target.path()), list(source.path()));
    }
}
