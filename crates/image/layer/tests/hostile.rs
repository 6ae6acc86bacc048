//! Layers made to do harm. Each must fail with an error that names the entry, or do what it says inside the target, and leave
//! everything outside as it was (which `Place::apply` checks each time).
#![allow(clippy::unwrap_used, reason = "tests")]

mod common;

use std::fs;

use common::{Place, Tar, gzip, merged};
use corten_layer::{ApplyOptions, Error, Limits};
use tar::EntryType;

/// The entry that was refused.
fn refused(result: Result<corten_layer::Applied, Error>) -> String {
    match result {
        Err(Error::Refused { entry, .. }) => entry,
        other => panic!("not refused: {other:?}"),
    }
}

#[test]
fn names_that_climb_out_are_refused() {
    for name in ["../outside/new", "a/../../outside/new", "..", "/../x", "a/b/../../../outside/secret"] {
        let place = Place::new();
        let archive = Tar::new().file("before", "x").file(name, "evil").end();
        assert_eq!(refused(place.merge(&archive)), name);
        assert_eq!(place.names(), ["before"], "what came before stays for the caller to throw away");
    }
}

#[test]
fn an_absolute_name_is_taken_from_the_root() {
    let place = Place::new();
    let name = place.outside().join("secret").display().to_string();
    place.merge(&Tar::new().file(&name, "evil").end()).unwrap();
    assert_eq!(place.read(name.trim_start_matches('/')), "evil");
}

#[test]
fn a_symlink_in_a_path_leads_inside() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    let archive = Tar::new()
        .symlink("absolute", &outside)
        .file("absolute/secret", "evil")
        .symlink("climbing", "../outside")
        .file("climbing/secret", "evil too")
        .end();
    place.merge(&archive).unwrap();
    assert_eq!(place.read(&format!("{}/secret", outside.trim_start_matches('/'))), "evil");
    assert_eq!(place.read("outside/secret"), "evil too");
}

#[test]
fn a_directory_swapped_for_a_symlink_is_not_followed_from_memory() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    let archive = Tar::new()
        .directory("d")
        .file("d/a", "a")
        .symlink("d", &outside)
        .file("d/secret", "evil")
        .file("d/d", "evil")
        .end();
    place.merge(&archive).unwrap();
    assert!(fs::symlink_metadata(place.target().join("d")).unwrap().is_symlink());
    assert_eq!(place.read(&format!("{}/secret", outside.trim_start_matches('/'))), "evil");
}

#[test]
fn a_symlink_in_place_of_a_file_is_replaced_not_written_through() {
    let place = Place::new();
    let secret = place.outside().join("secret").display().to_string();
    place.merge(&Tar::new().symlink("f", &secret).file("f", "evil").end()).unwrap();
    assert!(fs::symlink_metadata(place.target().join("f")).unwrap().is_file());
}

#[test]
fn attributes_of_a_swapped_directory_hit_nothing_else() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    // Directories get their attributes last: by then the name means something else.
    let mut header = Tar::header(EntryType::Directory, b"d", 0);
    header.set_mode(0o777);
    place.merge(&Tar::new().entry(header, b"").symlink("d", &outside).end()).unwrap();
    assert!(fs::symlink_metadata(place.target().join("d")).unwrap().is_symlink());
}

#[test]
fn symlink_loops_are_errors() {
    let place = Place::new();
    let result = place.merge(&Tar::new().symlink("a", "b").symlink("b", "a").file("a/x", "x").end());
    assert!(matches!(result, Err(Error::Entry { entry, .. }) if entry == "a/x"));
    let place = Place::new();
    // Each name is a directory of the next: resolving it would go on forever.
    let result = place.merge(&Tar::new().symlink("a", "a/a").file("a/x", "x").end());
    assert!(matches!(result, Err(Error::Entry { entry, .. }) if entry == "a/x"));
}

#[test]
fn a_dangling_symlink_in_a_path_makes_its_target_inside() {
    let place = Place::new();
    place.merge(&Tar::new().symlink("var/run", "../../../run").file("var/run/pid", "1").end()).unwrap();
    assert_eq!(place.names(), ["run", "run/pid", "var", "var/run"]);
}

#[test]
fn hard_links_reach_nothing_outside() {
    let place = Place::new();
    let secret = place.outside().join("secret").display().to_string();
    let archive = Tar::new().hard_link("stolen", "../outside/secret").end();
    assert_eq!(refused(place.merge(&archive)), "stolen");
    let archive = Tar::new().hard_link("stolen", &secret).end();
    assert_eq!(refused(place.merge(&archive)), "stolen");
    let archive = Tar::new().symlink("d", "../outside").hard_link("stolen", "d/secret").end();
    assert_eq!(refused(place.merge(&archive)), "stolen");
    // A link to a symlink is a second name of the symlink.
    let archive = Tar::new().symlink("s", &secret).hard_link("stolen", "s").file("stolen", "x").end();
    place.merge(&archive).unwrap();
    assert_eq!(place.read("stolen"), "x");
}

#[test]
fn hard_links_to_directories_themselves_and_nothing_are_refused() {
    for target in ["d", "link", "none", "/", ".."] {
        let place = Place::new();
        let result = place.merge(&Tar::new().directory("d").hard_link("link", target).end());
        assert_eq!(refused(result), "link", "{target}");
    }
}

#[test]
fn a_whiteout_must_name_something_beside_it() {
    for name in [".wh.", "d/.wh.", ".wh..", "d/.wh..", ".wh...", "d/.wh...", "d/../.wh..."] {
        let place = Place::new();
        let result = place.merge(&Tar::new().directory("d").file("d/f", "kept").whiteout(name).end());
        assert_eq!(refused(result), name);
        assert_eq!(place.read("d/f"), "kept");
    }
    let place = Place::new();
    assert_eq!(refused(place.merge(&Tar::new().file(".wh.d/f", "x").end())), ".wh.d/f");
}

#[test]
fn a_whiteout_through_a_symlink_deletes_nothing_outside() {
    let place = Place::new();
    let outside = place.outside().display().to_string();
    place.merge(&Tar::new().symlink("d", &outside).end()).unwrap();
    place.merge(&Tar::new().whiteout("d/.wh.secret").whiteout("d/.wh..wh..opq").end()).unwrap();
}

#[test]
fn data_that_is_not_there_is_an_error() {
    let place = Place::new();
    let mut archive = Tar::new().file("f", &"x".repeat(2000)).0;
    archive.truncate(1000);
    match place.merge(&archive) {
        Err(Error::Truncated { entry, missing }) => assert_eq!((entry.as_str(), missing), ("f", 2000 - 488)),
        other => panic!("{other:?}"),
    }
    let mut archive = Tar::new().file("f", "x").0;
    archive.extend_from_slice(&[1; 100]);
    assert!(matches!(place.merge(&archive), Err(Error::Truncated { .. })));
}

#[test]
fn a_damaged_compressed_stream_is_an_error() {
    let archive = Tar::new().file("f", &"x".repeat(2000)).end();
    let whole = gzip(&archive);
    for cut in [4, whole.len() / 2, whole.len() - 1] {
        let result = Place::new().merge(&whole[..cut]);
        assert!(matches!(result, Err(Error::Decompress { .. })), "cut at {cut}: {result:?}");
    }
    let mut flipped = whole.clone();
    let checksum = flipped.len() - 8;
    flipped[checksum] ^= 1;
    assert!(matches!(Place::new().merge(&flipped), Err(Error::Decompress { .. })));
    let garbage = [whole.as_slice(), b"garbage"].concat();
    assert!(matches!(Place::new().merge(&garbage), Err(Error::Decompress { .. })));
    let zstd = zstd::encode_all(archive.as_slice(), 0).unwrap();
    assert!(matches!(Place::new().merge(&zstd[..zstd.len() - 3]), Err(Error::Decompress { .. })));
}

#[test]
fn a_failing_reader_is_not_the_layers_fault() {
    struct Failing(usize);
    impl std::io::Read for Failing {
        fn read(&mut self, buf: &mut [u8]) -> std::io::Result<usize> {
            self.0 += 1;
            if self.0 > 1 {
                return Err(std::io::Error::new(std::io::ErrorKind::ConnectionReset, "the registry hung up"));
            }
            let start = gzip(&Tar::new().file("f", "x").end());
            buf[..4].copy_from_slice(&start[..4]);
            Ok(4)
        }
    }
    let place = Place::new();
    match corten_layer::apply(Failing(0), &place.target(), &merged()) {
        Err(Error::Read { offset: 4, source }) => assert_eq!(source.to_string(), "the registry hung up"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn a_bad_header_is_an_error() {
    let mut archive = Tar::new().file("a", "a").file("b", "b").end();
    archive[1024] ^= 1;
    match Place::new().merge(&archive) {
        Err(Error::Header { offset: 1024, reason }) => assert!(reason.contains("checksum"), "{reason}"),
        other => panic!("{other:?}"),
    }
    assert!(matches!(Place::new().merge(&[b'x'; 4096]), Err(Error::Header { offset: 0, .. })));
    let lone = [Tar::new().file("a", "a").0, vec![0; 512], Tar::new().file("b", "b").end()].concat();
    assert!(matches!(Place::new().merge(&lone), Err(Error::Header { .. })));
}

#[test]
fn nothing_is_an_empty_layer() {
    let place = Place::new();
    let applied = place.merge(b"").unwrap();
    assert_eq!((applied.entries, applied.bytes), (0, 0));
    assert_eq!(applied.diff_id, "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    assert!(place.names().is_empty());
}

#[test]
fn a_size_from_outside_is_not_believed() {
    let place = Place::new();
    let header = Tar::header(EntryType::Regular, b"huge", u64::MAX / 2);
    let result = place.merge(&Tar::new().entry(header, b"").end());
    assert!(matches!(result, Err(Error::Limit { what: "bytes", entry, .. }) if entry == "huge"));
    assert!(place.names().is_empty(), "nothing was created for it");
    // A name that claims gigabytes must not be read into memory.
    let header = Tar::header(EntryType::GNULongName, b"././@LongLink", 8 << 30);
    assert!(matches!(Place::new().merge(&Tar::new().entry(header, b"").end()), Err(Error::Limit { .. })));
    let header = Tar::header(EntryType::XHeader, b"pax", 8 << 30);
    assert!(matches!(Place::new().merge(&Tar::new().entry(header, b"").end()), Err(Error::Limit { .. })));
}

#[test]
fn limits_hold() {
    let options = |limits| ApplyOptions { limits, ..merged() };
    let bomb = gzip(&Tar::new().file("zeros", &"\0".repeat(1 << 20)).end());
    let result = Place::new().apply(&bomb, &options(Limits { bytes: 1 << 20, ..Limits::default() }));
    assert!(matches!(result, Err(Error::Limit { what: "bytes", .. })));
    let trailing = gzip(&[Tar::new().end(), vec![0; 1 << 20]].concat());
    let result = Place::new().apply(&trailing, &options(Limits { bytes: 1 << 20, ..Limits::default() }));
    assert!(matches!(result, Err(Error::Limit { what: "bytes", .. })));
    let many = Tar::new().file("1", "").file("2", "").file("3", "").end();
    let result = Place::new().apply(&many, &options(Limits { entries: 2, ..Limits::default() }));
    assert!(matches!(result, Err(Error::Limit { what: "entries", limit: 2, .. })));
    let result = Place::new()
        .apply(&Tar::new().directory("a/b/c/d").end(), &options(Limits { depth: 3, ..Limits::default() }));
    assert_eq!(refused(result), "a/b/c/d");
    let long = "x/".repeat(2100);
    let result = Place::new().apply(
        &Tar::new().pax(&[("path", long.as_bytes())]).file("short", "").end(),
        &options(Limits { depth: 10_000, ..Limits::default() }),
    );
    refused(result);
}

#[test]
fn an_unknown_entry_type_is_an_error() {
    for kind in [b'V', b'M', b'D', b'Z'] {
        let header = Tar::header(EntryType::new(kind), b"odd", 0);
        let result = Place::new().merge(&Tar::new().entry(header, b"").end());
        assert!(matches!(result, Err(Error::Unsupported { entry, .. }) if entry == "odd"));
    }
}

#[test]
fn an_owner_that_means_no_change_is_refused() {
    let mut header = Tar::header(EntryType::Regular, b"f", 0);
    header.set_uid(u64::from(u32::MAX));
    assert!(matches!(Place::new().merge(&Tar::new().entry(header, b"").end()), Err(Error::Header { .. })));
}

#[test]
fn another_content_than_promised_is_an_error() {
    let archive = Tar::new().file("f", "x").end();
    let actual = Place::new().merge(&archive).unwrap().diff_id;
    let promise = |diff_id: &str| ApplyOptions { expected_diff_id: Some(diff_id.to_owned()), ..merged() };
    Place::new().apply(&gzip(&archive), &promise(&actual)).unwrap();
    let other = format!("sha256:{}", "0".repeat(64));
    match Place::new().apply(&archive, &promise(&other)) {
        Err(Error::DiffId { expected, actual: got }) => assert_eq!((expected, got), (other, actual)),
        other => panic!("{other:?}"),
    }
}

#[test]
fn only_directories_can_be_the_root() {
    for archive in [Tar::new().symlink(".", "/"), Tar::new().file("./", "x"), Tar::new().hard_link("/", "x")]
    {
        let place = Place::new();
        let _ = place.merge(&archive.end());
        assert!(fs::symlink_metadata(place.target()).unwrap().is_dir());
    }
    refused(Place::new().merge(&Tar::new().symlink("a/..", "/").end()));
}

#[test]
fn a_file_in_the_way_of_a_directory_is_an_error() {
    let result = Place::new().merge(&Tar::new().file("f", "x").file("f/g", "y").end());
    assert!(matches!(result, Err(Error::Entry { entry, .. }) if entry == "f/g"));
}
