//! The corpus replayed: what once crashed a target is a file in it.
#![forbid(unsafe_code)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use integration_fuzz::TARGETS;

#[test]
fn nothing_in_the_corpus_crashes_its_target() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    for (name, target) in TARGETS {
        let files = fs::read_dir(corpus.join(name)).unwrap_or_else(|e| panic!("corpus/{name}: {e}"));
        let mut some = false;
        for file in files {
            let path = file.expect("a readable corpus").path();
            let bytes = fs::read(&path).expect("a readable corpus");
            // The file's name is in the panic's story.
            let told = std::panic::catch_unwind(|| target(&bytes));
            assert!(told.is_ok(), "{} crashes {name}", path.display());
            // And half of it, and some of it turned over.
            target(&bytes[..bytes.len() / 2]);
            for at in (0..bytes.len()).step_by(1 + bytes.len() / 64) {
                let mut other = bytes.clone();
                other[at] ^= 0x20;
                let told = std::panic::catch_unwind(|| target(&other));
                assert!(told.is_ok(), "{} with byte {at} changed crashes {name}", path.display());
            }
            some = true;
        }
        assert!(some, "corpus/{name} is empty");
    }
}

#[test]
fn every_directory_is_a_targets() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let found: BTreeSet<_> = fs::read_dir(corpus)
        .expect("a corpus")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .collect();
    assert_eq!(found, names);
}
