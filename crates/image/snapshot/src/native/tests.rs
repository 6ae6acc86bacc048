use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use super::*;

#[test]
fn native_keeps_the_contract() {
    crate::testsuite::run(&|root| Box::new(Native::open(root).expect("open")));
}

#[test]
fn a_copy_has_everything() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let native = Native::open(directory.path().join("s")).expect("open");
    native.prepare("unpack", None).expect("prepare");
    let tree = native.directory("unpack").expect("directory");
    fs::create_dir(tree.join("d")).expect("mkdir");
    fs::write(tree.join("d/file"), "content").expect("write");
    fs::set_permissions(tree.join("d/file"), fs::Permissions::from_mode(0o4751)).expect("chmod");
    fs::hard_link(tree.join("d/file"), tree.join("link")).expect("link");
    symlink("/nowhere", tree.join("symlink")).expect("symlink");
    fs::set_permissions(tree.join("d"), fs::Permissions::from_mode(0o1770)).expect("chmod");
    native.commit("base", "unpack").expect("commit");
    native.prepare("copy", Some("base")).expect("prepare");
    let copy = native.directory("copy").expect("directory");
    let metadata = fs::metadata(copy.join("d/file")).expect("stat");
    assert_eq!(metadata.mode() & 0o7777, 0o4751);
    assert_eq!(metadata.ino(), fs::metadata(copy.join("link")).expect("stat").ino());
    assert_ne!(metadata.ino(), fs::metadata(tree.join("d/file")).expect("stat").ino());
    assert_eq!(metadata.modified().ok(), fs::metadata(tree.join("d/file")).expect("stat").modified().ok());
    assert_eq!(fs::read_link(copy.join("symlink")).expect("readlink"), Path::new("/nowhere"));
    assert_eq!(fs::metadata(copy.join("d")).expect("stat").mode() & 0o7777, 0o1770);
}
