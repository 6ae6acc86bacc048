//! Reads a tar archive as a stream of entries.
//!
//! The fields of a header are the `tar` crate's to decode. Walking the stream is ours: its iterator reads extended headers
//! of any size into memory, splits PAX records at newlines (which binary attributes such as `security.capability` contain), and copies
//! data once more than needed.

mod pax;
mod sparse;

use std::io::BufRead;

use tar::{EntryType, Header};

use crate::name::show;
use crate::{Error, Limits, Result};

/// Size of everything in a tar.
const BLOCK: u64 = 512;

/// Seconds and nanoseconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Time {
    pub(crate) seconds: i64,
    pub(crate) nanoseconds: u32,
}

/// What an entry creates.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    File,
    HardLink,
    Symlink,
    CharDevice,
    BlockDevice,
    Directory,
    Fifo,
}

/// One entry, all headers that speak of it combined.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) kind: Kind,
    /// As in the archive: not to be trusted.
    pub(crate) name: Vec<u8>,
    /// Target of a link, as in the archive.
    pub(crate) link: Vec<u8>,
    /// Permissions with setuid, setgid and sticky.
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) mtime: Time,
    pub(crate) atime: Option<Time>,
    pub(crate) device: (u32, u32),
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// Length of the file, and where its data lies if it has holes.
    pub(crate) length: u64,
    pub(crate) sparse: Option<Vec<Extent>>,
}

/// A run of data in a sparse file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Extent {
    pub(crate) offset: u64,
    pub(crate) length: u64,
}

/// A tar being read.
pub(crate) struct Archive<R> {
    reader: R,
    limits: Limits,
    /// Position in the archive.
    offset: u64,
    /// Data of the current entry not yet taken, and the padding after it.
    data: u64,
    padding: u64,
    entries: u64,
    /// The current entry, for messages.
    name: Vec<u8>,
}

impl<R: BufRead> Archive<R> {
    pub(crate) fn new(reader: R, limits: Limits) -> Archive<R> {
        Archive { reader, limits, offset: 0, data: 0, padding: 0, entries: 0, name: Vec::new() }
    }

    /// Entries returned so far.
    pub(crate) fn entries(&self) -> u64 {
        self.entries
    }

    /// The next entry, or `None` at the end of the archive. What is left of the last one's data is skipped.
    pub(crate) fn next(&mut self) -> Result<Option<Entry>> {
        let mut extended = pax::Extended::default();
        loop {
            self.skip()?;
            let start = self.offset;
            let Some(header) = self.header()? else {
                return if extended.is_empty() { Ok(None) } else { Err(self.truncated(BLOCK)) };
            };
            let bad = |reason: String| Error::Header { offset: start, reason };
            let size = header.entry_size().map_err(|error| bad(error.to_string()))?;
            match header.entry_type() {
                EntryType::XHeader => {
                    extended.add_pax(&self.extension(size, extended.bytes)?).map_err(bad)?
                }
                EntryType::GNULongName => extended.set_name(self.extension(size, extended.bytes)?),
                EntryType::GNULongLink => extended.set_link(self.extension(size, extended.bytes)?),
                EntryType::XGlobalHeader => self.data_ahead(size),
                _ => return self.entry(&header, size, extended, start).map(Some),
            }
        }
    }

    /// Combines the headers.
    fn entry(&mut self, header: &Header, size: u64, extended: pax::Extended, start: u64) -> Result<Entry> {
        let bad = |error: std::io::Error| Error::Header { offset: start, reason: error.to_string() };
        let name = extended.name.unwrap_or_else(|| header.path_bytes().into_owned());
        self.name.clone_from(&name);
        self.entries += 1;
        if self.entries > self.limits.entries {
            return Err(self.limit("entries", self.limits.entries));
        }
        let kind = self.kind(header.entry_type(), &name)?;
        // As in Go's reader, by which registries' content is made: only files have data, whatever the header says.
        let stored = if kind == Kind::File { extended.size.unwrap_or(size) } else { 0 };
        let id = |value: u64, what: &str| {
            u32::try_from(value).ok().filter(|id| *id != u32::MAX).ok_or_else(|| Error::Header {
                offset: start,
                reason: format!("{what} {value} is out of range"),
            })
        };
        let mut entry = Entry {
            kind,
            link: extended
                .link
                .or_else(|| header.link_name_bytes().map(std::borrow::Cow::into_owned))
                .unwrap_or_default(),
            mode: header.mode().map_err(bad)? & 0o7777,
            uid: id(extended.uid.map_or_else(|| header.uid(), Ok).map_err(bad)?, "uid")?,
            gid: id(extended.gid.map_or_else(|| header.gid(), Ok).map_err(bad)?, "gid")?,
            mtime: match extended.mtime {
                Some(time) => time,
                // Times before 1970 are stored as negative numbers, which the crate returns as they are in memory.
                None => Time { seconds: header.mtime().map_err(bad)?.cast_signed(), nanoseconds: 0 },
            },
            atime: extended.atime,
            device: (0, 0),
            xattrs: extended.xattrs,
            length: stored,
            sparse: None,
            name,
        };
        if matches!(kind, Kind::CharDevice | Kind::BlockDevice) {
            entry.device = (
                header.device_major().map_err(bad)?.unwrap_or(0),
                header.device_minor().map_err(bad)?.unwrap_or(0),
            );
        }
        if header.entry_type() == EntryType::GNUSparse {
            let (extents, length) = self.sparse(header, stored)?;
            entry.sparse = Some(extents);
            entry.length = length;
        } else if extended.sparse {
            return Err(Error::Unsupported { entry: show(&self.name), what: "sparse files in PAX format" });
        }
        if entry.length.max(stored) > self.limits.bytes.saturating_sub(self.offset) {
            return Err(self.limit("bytes", self.limits.bytes));
        }
        self.data_ahead(stored);
        Ok(entry)
    }

    fn kind(&self, kind: EntryType, name: &[u8]) -> Result<Kind> {
        Ok(match kind {
            // Archives from before 1988 mark directories by their name only, and so do some of today's tools.
            EntryType::Regular if name.ends_with(b"/") => Kind::Directory,
            EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => Kind::File,
            EntryType::Link => Kind::HardLink,
            EntryType::Symlink => Kind::Symlink,
            EntryType::Char => Kind::CharDevice,
            EntryType::Block => Kind::BlockDevice,
            EntryType::Directory => Kind::Directory,
            EntryType::Fifo => Kind::Fifo,
            _ => return Err(Error::Unsupported { entry: show(name), what: "an unknown entry type" }),
        })
    }

    /// A piece of the current entry's data, as long as it is at hand; empty at the end of the data.
    pub(crate) fn data(&mut self) -> Result<&[u8]> {
        if self.data == 0 {
            return Ok(&[]);
        }
        let wanted = usize::try_from(self.data).unwrap_or(usize::MAX);
        // Asked twice because of the borrow: the second call returns what the first one got.
        if self.fill()? == 0 {
            return Err(self.truncated(self.data));
        }
        let part = self.reader.fill_buf().map_err(|error| internal(&error))?;
        Ok(&part[..part.len().min(wanted)])
    }

    /// Takes bytes that [`data`](Self::data) returned.
    pub(crate) fn consume(&mut self, amount: usize) {
        self.reader.consume(amount);
        self.offset += amount as u64;
        self.data -= amount as u64;
    }

    /// Reads whatever follows the archive, so that the digest covers all of the stream.
    pub(crate) fn drain(&mut self) -> Result<()> {
        loop {
            let available = self.fill()?;
            if available == 0 {
                return Ok(());
            }
            self.reader.consume(available);
        }
    }

    fn fill(&mut self) -> Result<usize> {
        Ok(self.reader.fill_buf().map_err(|error| internal(&error))?.len())
    }

    fn data_ahead(&mut self, size: u64) {
        self.data = size;
        self.padding = size.wrapping_neg() % BLOCK;
    }

    /// Skips to the next header.
    fn skip(&mut self) -> Result<()> {
        let mut left = self.data.saturating_add(self.padding);
        (self.data, self.padding) = (0, 0);
        while left > 0 {
            let available = self.fill()? as u64;
            if available == 0 {
                return Err(self.truncated(left));
            }
            let step = available.min(left);
            self.reader.consume(usize::try_from(step).unwrap_or(usize::MAX));
            self.offset += step;
            left -= step;
        }
        Ok(())
    }

    /// The next header, or `None` at the end: two blocks of zeros, or the end of the stream, which Go's reader tolerates too.
    fn header(&mut self) -> Result<Option<Header>> {
        let start = self.offset;
        let Some(mut header) = self.block()? else { return Ok(None) };
        if header.as_bytes().iter().all(|byte| *byte == 0) {
            return match self.block()? {
                Some(second) if second.as_bytes().iter().any(|byte| *byte != 0) => {
                    Err(Error::Header { offset: start, reason: "a lone block of zeros".to_owned() })
                }
                _ => Ok(None),
            };
        }
        if !checksum_holds(&header) {
            return Err(Error::Header { offset: start, reason: "its checksum doesn't match".to_owned() });
        }
        fill_blanks(&mut header);
        Ok(Some(header))
    }

    fn block(&mut self) -> Result<Option<Header>> {
        let mut header = Header::new_old();
        let mut filled = 0;
        while filled < BLOCK as usize {
            let part = &mut header.as_mut_bytes()[filled..];
            let n = self.reader.read(part).map_err(|error| internal(&error))?;
            if n == 0 {
                return if filled == 0 { Ok(None) } else { Err(self.truncated(BLOCK - filled as u64)) };
            }
            filled += n;
        }
        self.offset += BLOCK;
        Ok(Some(header))
    }

    /// The content of an extended header.
    fn extension(&mut self, size: u64, before: u64) -> Result<Vec<u8>> {
        if size.saturating_add(before) > self.limits.header_bytes {
            return Err(self.limit("bytes of extended headers", self.limits.header_bytes));
        }
        self.data_ahead(size);
        let mut content = Vec::with_capacity(usize::try_from(size).unwrap_or(0));
        loop {
            let part = self.data()?;
            if part.is_empty() {
                return Ok(content);
            }
            content.extend_from_slice(part);
            let taken = part.len();
            self.consume(taken);
        }
    }

    fn truncated(&self, missing: u64) -> Error {
        Error::Truncated { entry: show(&self.name), missing }
    }

    fn limit(&self, what: &'static str, limit: u64) -> Error {
        Error::Limit { entry: show(&self.name), what, limit }
    }
}

/// The chunk reader behind an archive doesn't fail: it ends.
fn internal(error: &std::io::Error) -> Error {
    Error::Header { offset: 0, reason: error.to_string() }
}

/// Writes a zero into each numeric field that was left blank. Go's reader takes such a field for zero, so there are
/// images which have them (device numbers of files, mostly); the tar crate takes it for an error.
fn fill_blanks(header: &mut Header) {
    // mode, uid, gid, size, mtime, and the device numbers, which only the newer formats have.
    let old = [100..108, 108..116, 116..124, 124..136, 136..148];
    let new = if header.as_ustar().is_some() || header.as_gnu().is_some() {
        vec![329..337, 337..345]
    } else {
        Vec::new()
    };
    let bytes = header.as_mut_bytes();
    for field in old.into_iter().chain(new) {
        if bytes[field.clone()].iter().all(|byte| matches!(byte, 0 | b' ')) {
            bytes[field.start] = b'0';
        }
    }
}

/// Sum of all bytes, the checksum field taken as spaces. Ancient archives have it over signed bytes.
fn checksum_holds(header: &Header) -> bool {
    let Ok(expected) = header.cksum() else { return false };
    let bytes = header.as_bytes();
    let (mut unsigned, mut signed) = (0u32, 0i64);
    for (index, byte) in bytes.iter().enumerate() {
        let byte = if (148..156).contains(&index) { b' ' } else { *byte };
        unsigned += u32::from(byte);
        signed += i64::from(byte.cast_signed());
    }
    expected == unsigned || i64::from(expected) == signed
}
