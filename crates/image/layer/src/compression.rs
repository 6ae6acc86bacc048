//! Which compression a stream has, and readers and writers for it.

use std::fmt;
use std::io::{self, BufReader, Read};

use crate::{Error, Result};

/// How a layer is compressed. Told by the first bytes, never by the media type: registries serve both kinds of lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Compression {
    /// A plain tar.
    None,
    /// gzip, in any number of members.
    Gzip,
    /// Zstandard, in any number of frames.
    Zstd,
}

impl Compression {
    /// Bytes that [`detect`](Self::detect) wants to see.
    pub const MAGIC_BYTES: usize = 4;

    /// Tells the compression from a stream's first bytes. Fewer bytes than [`MAGIC_BYTES`](Self::MAGIC_BYTES) mean a short stream.
    pub fn detect(start: &[u8]) -> Compression {
        match start {
            [0x1f, 0x8b, ..] => Compression::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Compression::Zstd,
            // A zstd stream may begin with a skippable frame, as pzstd and the seekable formats write them.
            [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Compression::Zstd,
            _ => Compression::None,
        }
    }

    /// The suffix of the OCI media type, as in `application/vnd.oci.image.layer.v1.tar+gzip`. Empty for none.
    pub fn media_type_suffix(self) -> &'static str {
        match self {
            Compression::None => "",
            Compression::Gzip => "+gzip",
            Compression::Zstd => "+zstd",
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::None => "plain tar",
            Compression::Gzip => "gzip",
            Compression::Zstd => "zstd",
        })
    }
}

/// The caller's stream: counts what it gave, and keeps its error apart from the decompressor's, because one means "try
/// again" and the other "this layer is broken".
pub(crate) struct Source<R> {
    inner: R,
    read: u64,
    failure: Option<io::Error>,
}

impl<R: Read> Source<R> {
    pub(crate) fn new(inner: R) -> Source<R> {
        Source { inner, read: 0, failure: None }
    }
}

impl<R: Read> Read for Source<R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buf) {
                Ok(n) => {
                    self.read += n as u64;
                    return Ok(n);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    let shown = io::Error::from(error.kind());
                    self.failure = Some(error);
                    return Err(shown);
                }
            }
        }
    }
}

/// A stream being decompressed.
pub(crate) struct Decompressor<R: Read> {
    reader: Format<R>,
    produced: u64,
}

type Buffered<R> = BufReader<io::Chain<io::Cursor<Vec<u8>>, Source<R>>>;

enum Format<R: Read> {
    None(Buffered<R>),
    Gzip(Box<flate2::bufread::MultiGzDecoder<Buffered<R>>>),
    Zstd(zstd::Decoder<'static, Buffered<R>>),
}

/// Large enough that a read from a pipe or a file is worth its system call.
const READ_BUFFER: usize = 128 * 1024;

impl<R: Read> Decompressor<R> {
    /// Reads the first bytes and chooses the format.
    pub(crate) fn new(reader: R) -> Result<Decompressor<R>> {
        let mut source = Source::new(reader);
        let mut start = Vec::with_capacity(Compression::MAGIC_BYTES);
        (&mut source)
            .take(Compression::MAGIC_BYTES as u64)
            .read_to_end(&mut start)
            .map_err(|shown| Error::Read { offset: 0, source: source.failure.take().unwrap_or(shown) })?;
        let compression = Compression::detect(&start);
        let input = BufReader::with_capacity(READ_BUFFER, io::Cursor::new(start).chain(source));
        let reader = match compression {
            Compression::None => Format::None(input),
            Compression::Gzip => Format::Gzip(Box::new(flate2::bufread::MultiGzDecoder::new(input))),
            Compression::Zstd => {
                Format::Zstd(zstd::Decoder::with_buffer(input).map_err(|source| Error::Decompress {
                    format: compression,
                    offset: 0,
                    source,
                })?)
            }
        };
        Ok(Decompressor { reader, produced: 0 })
    }

    pub(crate) fn compression(&self) -> Compression {
        match self.reader {
            Format::None(_) => Compression::None,
            Format::Gzip(_) => Compression::Gzip,
            Format::Zstd(_) => Compression::Zstd,
        }
    }

    /// Uncompressed bytes so far.
    pub(crate) fn produced(&self) -> u64 {
        self.produced
    }

    /// Compressed bytes taken from the caller so far.
    pub(crate) fn consumed(&self) -> u64 {
        self.source().read
    }

    fn source(&self) -> &Source<R> {
        match &self.reader {
            Format::None(reader) => reader.get_ref().get_ref().1,
            Format::Gzip(reader) => reader.get_ref().get_ref().get_ref().1,
            Format::Zstd(reader) => reader.get_ref().get_ref().get_ref().1,
        }
    }

    fn failure(&mut self) -> Option<io::Error> {
        match &mut self.reader {
            Format::None(reader) => reader.get_mut().get_mut().1.failure.take(),
            Format::Gzip(reader) => reader.get_mut().get_mut().get_mut().1.failure.take(),
            Format::Zstd(reader) => reader.get_mut().get_mut().get_mut().1.failure.take(),
        }
    }

    /// Fills `buffer` as far as the stream goes; less than its length means the end.
    pub(crate) fn fill(&mut self, buffer: &mut [u8]) -> Result<usize> {
        let mut filled = 0;
        while filled < buffer.len() {
            let part = &mut buffer[filled..];
            let result = match &mut self.reader {
                Format::None(reader) => reader.read(part),
                Format::Gzip(reader) => reader.read(part),
                Format::Zstd(reader) => reader.read(part),
            };
            match result {
                Ok(0) => break,
                Ok(n) => filled += n,
                Err(shown) => {
                    return Err(match self.failure() {
                        Some(source) => Error::Read { offset: self.consumed(), source },
                        None => Error::Decompress {
                            format: self.compression(),
                            offset: self.produced + filled as u64,
                            source: shown,
                        },
                    });
                }
            }
        }
        self.produced += filled as u64;
        Ok(filled)
    }
}
