use super::*;

fn open() -> (tempfile::TempDir, Overlay) {
    let directory = tempfile::tempdir().expect("temporary directory");
    let overlay = Overlay::open(directory.path().join("s")).expect("open");
    (directory, overlay)
}

fn chain(overlay: &Overlay, layers: usize) -> Result<String> {
    let mut parent: Option<String> = None;
    for layer in 0..layers {
        let name = format!("layer-{layer}");
        overlay.prepare("unpack", None)?;
        overlay.commit_onto(&name, "unpack", parent.as_deref())?;
        parent = Some(name);
    }
    Ok(parent.unwrap_or_default())
}

#[test]
fn overlay_keeps_the_contract() {
    crate::testsuite::run(&|root| Box::new(Overlay::open(root).expect("open")));
}

#[test]
fn mounts_depend_on_the_number_of_parents() {
    let (_directory, overlay) = open();
    let root = |number: u64, part: &str| overlay.index.tree(number).join(part).display().to_string();
    chain(&overlay, 2).expect("layers");
    let alone = overlay.prepare("alone", None).expect("prepare");
    assert_eq!(
        (alone[0].fs_type.as_str(), &alone[0].options[..]),
        ("bind", &["rbind".to_owned(), "rw".to_owned()][..])
    );
    let one = overlay.view("one", Some("layer-0")).expect("view");
    assert_eq!((one[0].source.clone(), &one[0].options[1]), (root(0, "fs").into(), &"ro".to_owned()));
    let both = overlay.view("both", Some("layer-1")).expect("view");
    let lowerdir = format!("lowerdir={}:{}", root(1, "fs"), root(0, "fs"));
    assert_eq!(both[0].options, ["ro", &lowerdir, "index=off"]);
    let active = overlay.prepare("active", Some("layer-1")).expect("prepare");
    let (upper, work) = (format!("upperdir={}", root(5, "fs")), format!("workdir={}", root(5, "work")));
    assert_eq!(active[0].options, [work.as_str(), &upper, &lowerdir, "index=off"]);
    assert_eq!((active[0].fs_type.as_str(), active[0].source.to_str()), ("overlay", Some("overlay")));
}

#[test]
fn a_root_that_would_break_the_options_is_refused() {
    let directory = tempfile::tempdir().expect("temporary directory");
    for name in ["a:b", "a,b", "a\\b"] {
        assert!(matches!(Overlay::open(directory.path().join(name)), Err(Error::BadRoot { .. })), "{name}");
    }
    assert!(matches!(Overlay::open("relative"), Err(Error::BadRoot { .. })));
}

#[test]
fn too_many_layers_for_a_page_are_an_error_and_leave_nothing() {
    let (_directory, overlay) = open();
    let name = chain(&overlay, 300).expect("layers");
    let before = overlay.walk();
    assert!(matches!(
        overlay.prepare("container", Some(&name)),
        Err(Error::TooManyLayers { layers: 300, .. })
    ));
    assert_eq!(overlay.walk(), before);
    assert_eq!(overlay.cleanup().expect("cleanup").trees, 0);
}

#[test]
fn the_root_directory_is_covered_by_one_like_it() {
    let (_directory, overlay) = open();
    overlay.prepare("unpack", None).expect("prepare");
    let layer = overlay.directory("unpack").expect("directory");
    fs::set_permissions(layer, fs::Permissions::from_mode(0o711)).expect("chmod");
    overlay.commit("base", "unpack").expect("commit");
    overlay.prepare("container", Some("base")).expect("prepare");
    let upper = overlay.directory("container").expect("directory");
    assert_eq!(fs::metadata(upper).expect("stat").mode() & 0o7777, 0o711);
}

#[test]
fn what_a_killed_process_leaves_is_swept() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let root = directory.path().join("s");
    {
        let overlay = Overlay::open(&root).expect("open");
        overlay.prepare("kept", None).expect("prepare");
        // Killed in prepare before the record is written, and in remove after it is gone.
        fs::create_dir_all(root.join("17/fs/deep")).expect("orphan");
        fs::write(root.join("17/fs/deep/file"), "x").expect("orphan's file");
        // Killed while a record was being written.
        fs::write(root.join("records/18.json"), "{\"version\":1,\"da").expect("torn record");
    }
    let overlay = Overlay::open(&root).expect("open");
    assert_eq!(overlay.cleanup().expect("cleanup").trees, 1);
    assert!(!root.join("17").exists());
    assert_eq!(overlay.walk().len(), 1);
    overlay.prepare("next", None).expect("numbers aren't used again while a tree has them");
    overlay.mounts("kept").expect("mounts");
}

#[test]
fn a_second_process_is_kept_out() {
    let (directory, _overlay) = open();
    assert!(matches!(Overlay::open(directory.path().join("s")), Err(Error::Locked(_))));
}
