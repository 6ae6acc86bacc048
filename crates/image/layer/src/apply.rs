//! Applying a layer: three threads and what they report.

use std::fmt::Write as _;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::thread;

use nix::sched::{CloneFlags, unshare};
use nix::sys::stat::{Mode, umask};
use sha2::{Digest, Sha256};

use crate::archive::Archive;
use crate::compression::Decompressor;
use crate::pipe::{CHUNK, Chunk, ChunkReader, Pool};
use crate::unpack::Unpacker;
use crate::{ApplyOptions, Compression, Error, Pending, Result};

/// What was applied.
#[derive(Debug)]
pub struct Applied {
    /// Digest of the uncompressed archive, `sha256:<64 hex digits>`.
    pub diff_id: String,
    /// How the stream was compressed.
    pub compression: Compression,
    /// Bytes read from the caller.
    pub compressed_bytes: u64,
    /// Bytes of the uncompressed archive.
    pub bytes: u64,
    /// Entries in the archive, whiteouts included.
    pub entries: u64,
    /// What must be done before the layer is used above others.
    pub pending: Pending,
}

/// Applies one layer to the directory `target`, which must exist.
///
/// The stream is read to its end, gzip, zstd or plain. With [`Whiteouts::Overlay`](crate::Whiteouts::Overlay) the
/// target must be empty; after an error it holds part of the layer and should be emptied.
///
/// # Errors
///
/// [`Error::Read`] when `reader` fails; all others speak of the layer or of the target.
pub fn apply(reader: impl Read, target: &Path, options: &ApplyOptions) -> Result<Applied> {
    let mut input = Decompressor::new(reader)?;
    let unpacker = Unpacker::new(target, options)?;
    let (to_hasher, for_hasher) = channel::<Arc<Chunk>>();
    let (to_writer, for_writer) = channel::<Arc<Chunk>>();
    let (read, hashed, written) = thread::scope(|scope| {
        let hasher = scope.spawn(move || hash(&for_hasher));
        let writer = scope.spawn(move || write(unpacker, for_writer, options));
        let read = pump(&mut input, options, |chunk| {
            to_hasher.send(Arc::clone(&chunk)).is_ok() && to_writer.send(chunk).is_ok()
        });
        drop((to_hasher, to_writer));
        (read, joined(hasher.join()), joined(writer.join()))
    });
    // A stream that breaks off looks like a short archive to the writer: what the reader says comes first.
    read?;
    let (entries, pending) = written?;
    if let Some(expected) = options.expected_diff_id.as_ref().filter(|expected| **expected != hashed) {
        return Err(Error::DiffId { expected: expected.clone(), actual: hashed });
    }
    let pending = if options.lowers.is_empty() {
        pending
    } else {
        pending.settle(target, &options.lowers)?;
        Pending::default()
    };
    Ok(Applied {
        diff_id: hashed,
        compression: input.compression(),
        compressed_bytes: input.consumed(),
        bytes: input.produced(),
        entries,
        pending,
    })
}

/// A panic in a thread of ours is a panic of the caller.
fn joined<T>(result: thread::Result<T>) -> T {
    result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Inflates into chunks until the stream ends or nobody wants more.
fn pump<R: Read>(
    input: &mut Decompressor<R>,
    options: &ApplyOptions,
    mut send: impl FnMut(Arc<Chunk>) -> bool,
) -> Result<()> {
    let mut pool = Pool::new();
    loop {
        let mut buffer = pool.take();
        let length = input.fill(&mut buffer)?;
        if input.produced() > options.limits.bytes {
            return Err(Error::Limit {
                entry: "(the end of the archive)".to_owned(),
                what: "bytes",
                limit: options.limits.bytes,
            });
        }
        if !send(pool.chunk(buffer, length)) || length < CHUNK {
            return Ok(());
        }
    }
}

fn hash(chunks: &Receiver<Arc<Chunk>>) -> String {
    let mut hasher = Sha256::new();
    while let Ok(chunk) = chunks.recv() {
        hasher.update(chunk.bytes());
    }
    digest(hasher)
}

/// A finished hash as OCI writes it.
pub(crate) fn digest(hasher: Sha256) -> String {
    let mut text = String::from("sha256:");
    for byte in hasher.finalize() {
        // Writing to a String doesn't fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn write(
    unpacker: Unpacker<'_>,
    chunks: Receiver<Arc<Chunk>>,
    options: &ApplyOptions,
) -> Result<(u64, Pending)> {
    // The umask is shared by all threads. This one takes a copy of its own, so that files get their final mode at birth. Where that is
    // forbidden, modes are corrected afterwards.
    if unshare(CloneFlags::CLONE_FS).is_ok() {
        umask(Mode::empty());
    }
    let mut archive = Archive::new(ChunkReader::new(chunks), options.limits);
    let pending = unpacker.run(&mut archive)?;
    Ok((archive.entries(), pending))
}
