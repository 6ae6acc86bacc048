//! The tests that every [`Snapshotter`] must pass, to be called from a driver's own tests:
//!
//! ```ignore
//! #[test]
//! fn overlay_keeps_the_contract() {
//!     corten_snapshot::testsuite::run(&|root| Box::new(Overlay::open(root).expect("open")));
//! }
//! ```
//!
//! Nothing is mounted: [`Snapshotter::directory`] shows what a snapshot stores. A failed expectation panics.

use std::fs;
use std::path::Path;
use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use crate::{Error, Kind, Layering, Snapshotter, Usage};

/// Opens the driver with a root directory of the suite's choice. It is called again for the same root after the first is dropped.
pub type Open<'a> = &'a dyn Fn(&Path) -> Box<dyn Snapshotter>;

type Test = fn(Open<'_>, &Path);

/// Runs all tests, each in a fresh directory.
pub fn run(open: Open<'_>) {
    let tests: &[(&str, Test)] = &[
        ("life", life),
        ("kinds", kinds),
        ("names", names),
        ("removal", removal),
        ("reopening", reopening),
        ("rebase", rebase),
        ("race", race),
        ("leftovers", leftovers),
        ("usage", usage),
        ("one_process", one_process),
    ];
    for (name, test) in tests {
        let run = RUNS.fetch_add(1, Ordering::Relaxed);
        let guard =
            Guard(std::env::temp_dir().join(format!("corten-snapshots-{}-{run}", std::process::id())));
        let _ = fs::remove_dir_all(&guard.0);
        eprintln!("snapshotter test suite: {name}");
        test(open, &guard.0);
    }
}

/// Drivers are tested side by side in one process.
static RUNS: AtomicU64 = AtomicU64::new(0);

struct Guard(std::path::PathBuf);

impl Drop for Guard {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn write(snapshots: &dyn Snapshotter, key: &str, file: &str) {
    let directory = snapshots.directory(key).expect("directory");
    fs::write(directory.join(file), file).expect("write");
}

fn layer(snapshots: &dyn Snapshotter, name: &str, parent: Option<&str>) {
    snapshots.prepare("unpack", parent).expect("prepare");
    write(snapshots, "unpack", &format!("file-of-{}", name.replace('/', "_")));
    snapshots.commit(name, "unpack").expect("commit");
}

fn life(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    layer(&*snapshots, "one", None);
    layer(&*snapshots, "two", Some("one"));
    let mounts = snapshots.prepare("container", Some("two")).expect("prepare");
    assert_eq!(mounts.len(), 1);
    assert_eq!(snapshots.mounts("container").expect("mounts"), mounts);
    let lowers = snapshots.lowers("two").expect("lowers");
    let holds = |file: &str| lowers.iter().any(|lower| lower.join(file).exists());
    assert!(holds("file-of-one") && holds("file-of-two"));
    assert!(lowers[0].join("file-of-two").exists(), "the topmost comes first");
    if snapshots.layering() == Layering::Merged {
        assert_eq!(lowers.len(), 1);
        assert!(snapshots.directory("container").expect("directory").join("file-of-one").exists());
    } else {
        assert_eq!(lowers.len(), 2);
        assert_eq!(
            fs::read_dir(snapshots.directory("container").expect("directory")).expect("list").count(),
            0
        );
    }
    // What is written to a child doesn't reach its parent.
    write(&*snapshots, "container", "new");
    assert!(!holds("new"));
    let keys: Vec<_> = snapshots.walk().into_iter().map(|info| info.key).collect();
    assert_eq!(keys, ["container", "one", "two"]);
}

fn kinds(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    layer(&*snapshots, "base", None);
    snapshots.prepare("active", Some("base")).expect("prepare");
    snapshots.view("view", Some("base")).expect("view");
    snapshots.view("empty", None).expect("view of nothing");
    let kind = |key| snapshots.stat(key).map(|info| (info.kind, info.parent));
    let base = Some("base".to_owned());
    assert_eq!(kind("base"), Some((Kind::Committed, None)));
    assert_eq!(kind("active"), Some((Kind::Active, base.clone())));
    assert_eq!(kind("view"), Some((Kind::View, base)));
    assert_eq!(kind("empty"), Some((Kind::View, None)));
    assert_eq!(kind("none"), None);
    let mounts = snapshots.mounts("view").expect("mounts");
    assert!(mounts.iter().all(|mount| mount.options.iter().any(|option| option == "ro")), "{mounts:?}");
    assert!(matches!(snapshots.mounts("base"), Err(Error::WrongKind { .. })));
    assert!(matches!(snapshots.commit("x", "view"), Err(Error::WrongKind { .. })));
    assert!(matches!(snapshots.commit("x", "base"), Err(Error::WrongKind { .. })));
    assert!(matches!(snapshots.directory("view"), Err(Error::WrongKind { .. })));
    assert!(matches!(snapshots.prepare("x", Some("active")), Err(Error::ParentNotCommitted { .. })));
    assert!(matches!(snapshots.lowers("active"), Err(Error::ParentNotCommitted { .. })));
}

fn names(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    let odd = "sha256:../../\u{e4}/x y,=";
    layer(&*snapshots, odd, None);
    snapshots.prepare("active", Some(odd)).expect("prepare");
    for key in [odd, "active"] {
        assert!(matches!(snapshots.prepare(key, None), Err(Error::Exists(_))));
        assert!(matches!(snapshots.view(key, None), Err(Error::Exists(_))));
    }
    assert!(matches!(snapshots.commit(odd, "active"), Err(Error::Exists(_))));
    assert_eq!(
        snapshots.stat("active").map(|info| info.kind),
        Some(Kind::Active),
        "a failed commit changes nothing"
    );
    for key in ["", &"x".repeat(1025)] {
        assert!(matches!(snapshots.prepare(key, None), Err(Error::BadKey(..))));
        assert!(matches!(snapshots.commit(key, "active"), Err(Error::BadKey(..))));
    }
    assert!(matches!(snapshots.prepare("x", Some("none")), Err(Error::NotFound(_))));
    assert!(matches!(snapshots.mounts("none"), Err(Error::NotFound(_))));
    assert!(matches!(snapshots.commit("x", "none"), Err(Error::NotFound(_))));
    assert!(matches!(snapshots.usage("none"), Err(Error::NotFound(_))));
    // The key is free after the commit, and so is what failed.
    snapshots.commit("committed", "active").expect("commit");
    snapshots.prepare("active", None).expect("prepare again");
    snapshots.prepare("x", None).expect("prepare");
}

fn removal(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    layer(&*snapshots, "one", None);
    layer(&*snapshots, "two", Some("one"));
    snapshots.prepare("active", Some("two")).expect("prepare");
    assert!(matches!(snapshots.remove("one"), Err(Error::HasChildren { child, .. }) if child == "two"));
    assert!(matches!(snapshots.remove("two"), Err(Error::HasChildren { child, .. }) if child == "active"));
    let directory = snapshots.directory("active").expect("directory");
    for key in ["active", "two", "one"] {
        snapshots.remove(key).expect("remove");
        snapshots.remove(key).expect("removing what isn't there succeeds");
        assert_eq!(snapshots.stat(key), None);
    }
    snapshots.cleanup().expect("cleanup");
    assert!(!directory.exists());
    assert!(snapshots.walk().is_empty());
}

fn reopening(open: Open<'_>, root: &Path) {
    let (before, mounts) = {
        let snapshots = open(root);
        layer(&*snapshots, "one", None);
        layer(&*snapshots, "two", Some("one"));
        snapshots.prepare("active", Some("two")).expect("prepare");
        snapshots.view("view", Some("one")).expect("view");
        write(&*snapshots, "active", "kept");
        (snapshots.walk(), snapshots.mounts("active").expect("mounts"))
    };
    let snapshots = open(root);
    assert_eq!(snapshots.cleanup().expect("cleanup").trees, 0);
    assert_eq!(snapshots.walk(), before);
    assert_eq!(snapshots.mounts("active").expect("mounts"), mounts);
    assert!(snapshots.directory("active").expect("directory").join("kept").exists());
    snapshots.prepare("another", Some("two")).expect("prepare");
    assert_ne!(
        snapshots.directory("another").expect("directory"),
        snapshots.directory("active").expect("directory")
    );
}

fn rebase(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    snapshots.prepare("unpack-2", None).expect("prepare");
    snapshots.prepare("unpack-1", None).expect("prepare");
    write(&*snapshots, "unpack-2", "upper");
    write(&*snapshots, "unpack-1", "lower");
    snapshots.commit_onto("one", "unpack-1", None).expect("commit");
    assert!(matches!(
        snapshots.commit_onto("two", "unpack-2", Some("none")),
        Err(Error::NotFound(_) | Error::CantRebase { .. })
    ));
    let result = snapshots.commit_onto("two", "unpack-2", Some("one"));
    if snapshots.layering() == Layering::Merged {
        assert!(matches!(result, Err(Error::CantRebase { .. })));
        assert_eq!(snapshots.stat("unpack-2").map(|info| info.kind), Some(Kind::Active));
        return;
    }
    result.expect("commit onto the parent");
    assert_eq!(snapshots.stat("two").and_then(|info| info.parent).as_deref(), Some("one"));
    let lowers = snapshots.lowers("two").expect("lowers");
    assert!(lowers[0].join("upper").exists() && lowers[1].join("lower").exists());
    assert!(matches!(snapshots.remove("one"), Err(Error::HasChildren { .. })));
}

fn race(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    layer(&*snapshots, "base", None);
    let (snapshots, threads) = (&*snapshots, 8);
    let barrier = Barrier::new(threads);
    let barrier = &barrier;
    let won: usize = thread::scope(|scope| {
        let contenders: Vec<_> = (0..threads)
            .map(|contender| {
                scope.spawn(move || {
                    barrier.wait();
                    let own = format!("own-{contender}");
                    snapshots.prepare(&own, Some("base")).expect("a key of one's own");
                    match snapshots.prepare("contended", Some("base")) {
                        Ok(_) => 1,
                        Err(Error::Exists(_)) => 0,
                        Err(error) => panic!("{error}"),
                    }
                })
            })
            .collect();
        contenders.into_iter().map(|contender| contender.join().expect("join")).sum()
    });
    assert_eq!(won, 1);
    assert_eq!(snapshots.walk().len(), threads + 2);
}

fn leftovers(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    layer(&*snapshots, "base", None);
    let directory = snapshots.directory("base").expect("directory");
    assert_eq!(snapshots.cleanup().expect("cleanup").trees, 0);
    assert!(directory.join("file-of-base").exists(), "what is known is never swept");
}

fn usage(open: Open<'_>, root: &Path) {
    let snapshots = open(root);
    snapshots.prepare("unpack", None).expect("prepare");
    let directory = snapshots.directory("unpack").expect("directory");
    let empty = snapshots.usage("unpack").expect("usage");
    fs::write(directory.join("file"), vec![1; 1 << 20]).expect("write");
    fs::hard_link(directory.join("file"), directory.join("link")).expect("link");
    let filled = snapshots.usage("unpack").expect("usage");
    assert_eq!(filled.inodes, empty.inodes + 1, "a hard link is no inode");
    assert!((1 << 20..2 << 20).contains(&(filled.bytes - empty.bytes)), "{filled:?}");
    snapshots.commit("base", "unpack").expect("commit");
    assert_eq!(snapshots.usage("base").expect("usage"), filled);
    assert_eq!(snapshots.usage("base").expect("usage, remembered"), filled);
    snapshots.view("view", Some("base")).expect("view");
    assert_eq!(snapshots.usage("view").expect("usage"), Usage::default());
}

fn one_process(open: Open<'_>, root: &Path) {
    // What a second process would get is up to the driver's constructor; but the first one's root must not be world-readable.
    use std::os::unix::fs::PermissionsExt;
    let _snapshots = open(root);
    let mode = fs::metadata(root).expect("root").permissions().mode();
    assert_eq!(mode & 0o066, 0, "{mode:o}: images' setuid programs are beneath");
}
