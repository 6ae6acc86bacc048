//! The promises of the store.

use std::fs;
use std::io::Read;
use std::time::Duration;

use corten_content::{Algorithm, Digest, Error, Expected, Hasher, Store};

const BYTES: &[u8] = b"a layer, say";

fn store() -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let store = Store::open(dir.path()).expect("a store");
    (dir, store)
}

fn expected(bytes: &[u8]) -> Option<Expected> {
    Some(Expected { digest: Digest::sha256(bytes), size: bytes.len() as u64 })
}

fn partial_count(store: &Store) -> usize {
    store.partials().expect("a listing").len()
}

#[test]
fn a_committed_blob_can_be_read_listed_and_deleted() {
    let (_dir, store) = store();
    let mut writer = store.ingest("layer", expected(BYTES)).unwrap();
    writer.append(&BYTES[..5]).unwrap();
    writer.append(&BYTES[5..]).unwrap();
    let digest = Digest::sha256(BYTES);
    assert!(store.info(&digest).unwrap().is_none(), "it is visible before its commit");
    let info = writer.commit().unwrap();
    assert_eq!((&info.digest, info.size), (&digest, BYTES.len() as u64));
    assert_eq!(store.list().unwrap(), [info]);
    assert_eq!(partial_count(&store), 0);
    let mut read = Vec::new();
    store.reader(&digest).unwrap().read_to_end(&mut read).unwrap();
    assert_eq!(read, BYTES);
    store.delete(&digest).unwrap();
    store.delete(&digest).unwrap();
    assert!(matches!(store.reader(&digest), Err(Error::NotFound(d)) if d == digest));
}

#[test]
fn an_interrupted_ingest_is_continued_and_its_beginning_hashed() {
    let (_dir, store) = store();
    let mut writer = store.ingest("layer", expected(BYTES)).unwrap();
    writer.append(&BYTES[..5]).unwrap();
    drop(writer);
    let mut writer = store.ingest("layer", expected(BYTES)).unwrap();
    assert_eq!(writer.offset(), 5);
    let mut before = Vec::new();
    writer.written().unwrap().read_to_end(&mut before).unwrap();
    assert_eq!(before, &BYTES[..5]);
    writer.append(&BYTES[5..]).unwrap();
    writer.commit().unwrap();
    assert_eq!(store.read(&Digest::sha256(BYTES), 100).unwrap(), BYTES);
}

#[test]
fn lies_about_digest_and_size_leave_nothing() {
    let (_dir, store) = store();
    let mut writer = store.ingest("x", Some(Expected { digest: Digest::sha256(b"else"), size: 4 })).unwrap();
    writer.append(b"what").unwrap();
    let error = writer.commit().unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error}");

    let mut writer = store.ingest("x", expected(b"long")).unwrap();
    let error = writer.append(b"longer").unwrap_err();
    assert!(matches!(error, Error::SizeMismatch { expected: 4, actual: 6, .. }), "{error}");
    drop(writer);
    assert_eq!((store.list().unwrap().len(), partial_count(&store)), (0, 0));

    // Too short isn't a lie yet: the rest may come.
    let mut writer = store.ingest("x", expected(b"long")).unwrap();
    writer.append(b"lo").unwrap();
    assert!(matches!(writer.commit(), Err(Error::SizeMismatch { expected: 4, actual: 2, .. })));
    assert_eq!((store.list().unwrap().len(), partial_count(&store)), (0, 1));
}

#[test]
fn a_partial_that_is_too_long_is_no_beginning() {
    let (_dir, store) = store();
    let mut writer = store.ingest("x", None).unwrap();
    writer.append(b"much too long").unwrap();
    drop(writer);
    let mut writer = store.ingest("x", expected(b"ok")).unwrap();
    assert_eq!(writer.offset(), 0);
    writer.append(b"ok").unwrap();
    writer.commit().unwrap();
}

#[test]
fn one_writer_at_a_time() {
    let (_dir, store) = store();
    let writer = store.ingest("x", None).unwrap();
    assert!(matches!(store.ingest("x", None), Err(Error::Busy { .. })));
    store.ingest("y", None).unwrap().abandon();
    // What is being written isn't stale, however old.
    store.cleanup(Duration::ZERO).unwrap();
    assert_eq!(partial_count(&store), 1);
    drop(writer);
    store.cleanup(Duration::from_secs(3600)).unwrap();
    assert_eq!(partial_count(&store), 1);
    store.cleanup(Duration::ZERO).unwrap();
    assert_eq!(partial_count(&store), 0);
}

#[test]
fn a_blob_that_the_disk_damaged_is_noticed() {
    let (_dir, store) = store();
    let info = store.put(BYTES, None).unwrap();
    let path = store.blob_path(&info.digest);
    fs::remove_file(&path).unwrap();
    fs::write(&path, b"rotten bytes").unwrap();
    assert!(matches!(store.read(&info.digest, 100), Err(Error::DigestMismatch { .. })));
    assert!(matches!(store.read(&info.digest, 3), Err(Error::SizeMismatch { .. })));
}

#[test]
fn sha512_blobs_live_beside() {
    let (_dir, store) = store();
    let mut hasher = Hasher::new(Algorithm::Sha512);
    hasher.update(BYTES);
    let digest = hasher.finish();
    let info = store.put(BYTES, Some(Expected { digest: digest.clone(), size: BYTES.len() as u64 })).unwrap();
    assert_eq!(info.digest, digest);
    assert_eq!(store.list().unwrap(), [info]);
}
