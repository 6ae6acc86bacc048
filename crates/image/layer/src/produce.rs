//! Producing a layer from a directory tree.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, Read, Write};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use corten_sys::xattr;
use nix::sys::stat::{major, minor};
use sha2::{Digest, Sha256};
use tar::{Builder, EntryType, Header};

use crate::apply::digest;
use crate::{Compression, Error, Result, Whiteouts};

/// How a layer is made.
#[derive(Debug, Clone, Copy)]
pub struct ProduceOptions {
    /// How the tar is compressed.
    pub compression: Compression,
    /// What marks deletions in the directory. [`Whiteouts::Merge`] means that nothing does: the tree is taken as it is.
    pub whiteouts: Whiteouts,
    /// Modification times later than this (seconds since 1970) become this, for layers that can be made again
    /// to the byte. `None` keeps them.
    pub latest_mtime: Option<i64>,
    /// Everything belongs to root, whoever owns the files here.
    pub owned_by_root: bool,
}

impl Default for ProduceOptions {
    /// gzip, from an overlay's upper directory, times and owners kept.
    fn default() -> ProduceOptions {
        ProduceOptions {
            compression: Compression::Gzip,
            whiteouts: Whiteouts::Overlay,
            latest_mtime: None,
            owned_by_root: false,
        }
    }
}

/// What was produced.
#[derive(Debug, Clone)]
pub struct Produced {
    /// Digest of the uncompressed tar, `sha256:<64 hex digits>`: the image config's diffID.
    pub diff_id: String,
    /// Digest of what was written, `sha256:<64 hex digits>`: the blob's digest.
    pub digest: String,
    /// Bytes written.
    pub size: u64,
    /// Bytes of the uncompressed tar.
    pub bytes: u64,
    /// Entries in the tar.
    pub entries: u64,
}

/// Writes `directory` as a layer to `writer`.
///
/// The same tree gives the same bytes: entries are sorted, deletions come first in their directory, hard links within the tree stay links, and
/// neither access times nor names of users are recorded. The tree must not change meanwhile.
///
/// # Errors
///
/// When a file can't be read or `writer` fails. Sockets are left out, as tar can't hold them.
pub fn produce(directory: &Path, writer: impl Write, options: &ProduceOptions) -> Result<Produced> {
    let failed = |source| Error::Produce { path: directory.to_owned(), source };
    let blob = Hashing::new(writer);
    let compressor = Compressor::new(blob, options.compression).map_err(failed)?;
    let mut producer = Producer {
        root: directory,
        options,
        builder: Builder::new(Hashing::new(compressor)),
        links: HashMap::new(),
        entries: 0,
    };
    producer.directory(Path::new(""))?;
    let entries = producer.entries;
    let tar = producer.builder.into_inner().map_err(failed)?;
    let (compressor, tar_hasher, bytes) = tar.into_parts();
    let (mut writer, blob_hasher, size) = compressor.finish().map_err(failed)?.into_parts();
    writer.flush().map_err(failed)?;
    Ok(Produced { diff_id: digest(tar_hasher), digest: digest(blob_hasher), size, bytes, entries })
}

struct Producer<'a, W: Write> {
    root: &'a Path,
    options: &'a ProduceOptions,
    builder: Builder<W>,
    /// The first name of each inode that has several.
    links: HashMap<(u64, u64), PathBuf>,
    entries: u64,
}

impl<W: Write> Producer<'_, W> {
    /// Writes a directory's own entry, then its deletions, then the rest.
    fn directory(&mut self, path: &Path) -> Result<()> {
        let at = |source| Error::Produce { path: path.to_owned(), source };
        let full = self.root.join(path);
        let metadata = fs::symlink_metadata(&full).map_err(at)?;
        self.entry(path, &metadata, EntryType::Directory)?;
        if self.is_opaque(&full).map_err(at)? {
            self.deletion(&path.join(".wh..wh..opq"))?;
        }
        let (mut deleted, mut names) = (Vec::new(), Vec::new());
        for item in fs::read_dir(&full).map_err(at)? {
            let item = item.map_err(at)?;
            let metadata = item.metadata().map_err(at)?;
            let gone = self.options.whiteouts != Whiteouts::Merge
                && metadata.file_type().is_char_device()
                && metadata.rdev() == 0;
            if gone { deleted.push(item.file_name()) } else { names.push((item.file_name(), metadata)) }
        }
        deleted.sort();
        for name in deleted {
            let mut whiteout = b".wh.".to_vec();
            whiteout.extend_from_slice(name.as_bytes());
            self.deletion(&path.join(OsStr::from_bytes(&whiteout)))?;
        }
        names.sort_by(|(a, _), (b, _)| a.cmp(b));
        for (name, metadata) in names {
            self.item(&path.join(name), &metadata)?;
        }
        Ok(())
    }

    fn item(&mut self, path: &Path, metadata: &Metadata) -> Result<()> {
        let kind = metadata.file_type();
        if kind.is_dir() {
            return self.directory(path);
        }
        if metadata.nlink() > 1 {
            let inode = (metadata.dev(), metadata.ino());
            if self.links.contains_key(&inode) {
                return self.entry(path, metadata, EntryType::Link);
            }
            self.links.insert(inode, path.to_owned());
        }
        let kind = if kind.is_file() {
            EntryType::Regular
        } else if kind.is_symlink() {
            EntryType::Symlink
        } else if kind.is_char_device() {
            EntryType::Char
        } else if kind.is_block_device() {
            EntryType::Block
        } else if kind.is_fifo() {
            EntryType::Fifo
        } else {
            return Ok(());
        };
        self.entry(path, metadata, kind)
    }

    fn is_opaque(&self, full: &Path) -> io::Result<bool> {
        let name: &[u8] = match self.options.whiteouts {
            Whiteouts::Overlay => b"trusted.overlay.opaque",
            Whiteouts::OverlayUser => b"user.overlay.opaque",
            Whiteouts::Merge => return Ok(false),
        };
        Ok(xattr::lget(full, name)?.as_deref() == Some(b"y"))
    }

    fn deletion(&mut self, path: &Path) -> Result<()> {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o600);
        header.set_size(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        let mut pax = Vec::new();
        set_name(&mut header, &mut pax, path.as_os_str().as_bytes());
        self.append(path, header, pax, io::empty())
    }

    fn entry(&mut self, path: &Path, metadata: &Metadata, kind: EntryType) -> Result<()> {
        let at = |source| Error::Produce { path: path.to_owned(), source };
        let full = self.root.join(path);
        let mut header = Header::new_ustar();
        let mut pax = Vec::new();
        header.set_entry_type(kind);
        header.set_mode(metadata.mode() & 0o7777);
        let owned_by_root = self.options.owned_by_root;
        header.set_uid(if owned_by_root { 0 } else { u64::from(metadata.uid()) });
        header.set_gid(if owned_by_root { 0 } else { u64::from(metadata.gid()) });
        header.set_size(if kind == EntryType::Regular { metadata.len() } else { 0 });
        self.set_time(&mut header, &mut pax, metadata);
        let name = match kind {
            EntryType::Directory if path.as_os_str().is_empty() => b"./".to_vec(),
            EntryType::Directory => [path.as_os_str().as_bytes(), b"/"].concat(),
            _ => path.as_os_str().as_bytes().to_vec(),
        };
        set_name(&mut header, &mut pax, &name);
        match kind {
            EntryType::Symlink => {
                let target = fs::read_link(&full).map_err(at)?.into_os_string().into_vec();
                set_link(&mut header, &mut pax, &target);
            }
            EntryType::Link => {
                let first = self.links.get(&(metadata.dev(), metadata.ino())).cloned().unwrap_or_default();
                set_link(&mut header, &mut pax, first.as_os_str().as_bytes());
            }
            EntryType::Char | EntryType::Block => {
                let number = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
                header.set_device_major(number(major(metadata.rdev()))).map_err(at)?;
                header.set_device_minor(number(minor(metadata.rdev()))).map_err(at)?;
            }
            _ => {}
        }
        // A link's attributes are its first name's.
        if kind != EntryType::Link {
            for name in xattr::llist(&full).map_err(at)? {
                if name.starts_with(b"trusted.overlay.") || name.starts_with(b"user.overlay.") {
                    continue;
                }
                if let Some(value) = xattr::lget(&full, &name).map_err(at)? {
                    pax.push(([b"SCHILY.xattr.".as_slice(), &name].concat(), value));
                }
            }
        }
        if kind == EntryType::Regular {
            let file = File::open(&full).map_err(at)?;
            // Exactly as many bytes as the header says, even if the file grows.
            let mut data = file.take(metadata.len());
            self.append(path, header, pax, &mut data)?;
            if data.limit() > 0 {
                return Err(at(io::Error::new(io::ErrorKind::UnexpectedEof, "it shrank meanwhile")));
            }
            Ok(())
        } else {
            self.append(path, header, pax, io::empty())
        }
    }

    /// Whole seconds go into the header, fractions and times before 1970 into a record.
    fn set_time(&self, header: &mut Header, pax: &mut Vec<(Vec<u8>, Vec<u8>)>, metadata: &Metadata) {
        let (seconds, nanoseconds) = match self.options.latest_mtime {
            Some(latest) if metadata.mtime() >= latest => (latest, 0),
            _ => (metadata.mtime(), metadata.mtime_nsec()),
        };
        header.set_mtime(u64::try_from(seconds).unwrap_or(0));
        if nanoseconds != 0 && seconds >= 0 {
            let text = format!("{seconds}.{nanoseconds:09}");
            pax.push((b"mtime".to_vec(), text.trim_end_matches('0').as_bytes().to_vec()));
        } else if seconds < 0 {
            pax.push((b"mtime".to_vec(), seconds.to_string().into_bytes()));
        }
    }

    fn append(
        &mut self,
        path: &Path,
        mut header: Header,
        pax: Vec<(Vec<u8>, Vec<u8>)>,
        data: impl Read,
    ) -> Result<()> {
        let at = |source| Error::Produce { path: path.to_owned(), source };
        if !pax.is_empty() {
            let mut records = Vec::new();
            for (key, value) in &pax {
                let key = std::str::from_utf8(key).map_err(|_| {
                    at(io::Error::new(
                        io::ErrorKind::InvalidData,
                        "an extended attribute's name is not UTF-8",
                    ))
                })?;
                records.push((key, value.as_slice()));
            }
            self.builder.append_pax_extensions(records).map_err(at)?;
        }
        header.set_cksum();
        self.entries += 1;
        self.builder.append(&header, data).map_err(at)
    }
}

/// A name goes into the header if it fits there whole, else into a record.
fn set_name(header: &mut Header, pax: &mut Vec<(Vec<u8>, Vec<u8>)>, name: &[u8]) {
    let field = &mut header.as_old_mut().name;
    let fits = name.len().min(field.len());
    field[..fits].copy_from_slice(&name[..fits]);
    if fits < name.len() {
        pax.push((b"path".to_vec(), name.to_vec()));
    }
}

fn set_link(header: &mut Header, pax: &mut Vec<(Vec<u8>, Vec<u8>)>, target: &[u8]) {
    let field = &mut header.as_old_mut().linkname;
    let fits = target.len().min(field.len());
    field[..fits].copy_from_slice(&target[..fits]);
    if fits < target.len() {
        pax.push((b"linkpath".to_vec(), target.to_vec()));
    }
}

/// A writer that hashes and counts what goes through it.
struct Hashing<W> {
    inner: W,
    hasher: Sha256,
    bytes: u64,
}

impl<W> Hashing<W> {
    fn new(inner: W) -> Hashing<W> {
        Hashing { inner, hasher: Sha256::new(), bytes: 0 }
    }

    fn into_parts(self) -> (W, Sha256, u64) {
        (self.inner, self.hasher, self.bytes)
    }
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(buf)?;
        self.hasher.update(&buf[..written]);
        self.bytes += written as u64;
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

/// A writer in one of the formats.
enum Compressor<W: Write> {
    None(W),
    Gzip(flate2::write::GzEncoder<W>),
    Zstd(zstd::Encoder<'static, W>),
}

impl<W: Write> Compressor<W> {
    fn new(inner: W, compression: Compression) -> io::Result<Compressor<W>> {
        Ok(match compression {
            Compression::None => Compressor::None(inner),
            Compression::Gzip => {
                Compressor::Gzip(flate2::write::GzEncoder::new(inner, flate2::Compression::default()))
            }
            Compression::Zstd => Compressor::Zstd(zstd::Encoder::new(inner, 0)?),
        })
    }

    fn finish(self) -> io::Result<W> {
        match self {
            Compressor::None(inner) => Ok(inner),
            Compressor::Gzip(encoder) => encoder.finish(),
            Compressor::Zstd(encoder) => encoder.finish(),
        }
    }
}

impl<W: Write> Write for Compressor<W> {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Compressor::None(inner) => inner.write(buf),
            Compressor::Gzip(encoder) => encoder.write(buf),
            Compressor::Zstd(encoder) => encoder.write(buf),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Compressor::None(inner) => inner.flush(),
            Compressor::Gzip(encoder) => encoder.flush(),
            Compressor::Zstd(encoder) => encoder.flush(),
        }
    }
}
