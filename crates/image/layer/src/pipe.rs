//! Recycled buffers that go from one producer to two consumers.

use std::io::{self, BufRead, Read};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};

/// Bytes of a buffer: small enough that it is still in the cache when the second consumer comes to it.
pub(crate) const CHUNK: usize = 256 * 1024;

/// Buffers of one layer. With [`CHUNK`] this bounds its memory to 2 MiB, enough to bridge a slow write.
const CHUNKS: usize = 8;

/// A filled buffer. It goes home when the last consumer drops it.
pub(crate) struct Chunk {
    data: Vec<u8>,
    length: usize,
    home: Sender<Vec<u8>>,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.data[..self.length]
    }
}

impl Drop for Chunk {
    fn drop(&mut self) {
        // The pool is gone when the layer is over; then so is the need for the buffer.
        let _ = self.home.send(std::mem::take(&mut self.data));
    }
}

/// The buffers at home.
pub(crate) struct Pool {
    free: Receiver<Vec<u8>>,
    home: Sender<Vec<u8>>,
    unborn: usize,
}

impl Pool {
    pub(crate) fn new() -> Pool {
        let (home, free) = channel();
        Pool { free, home, unborn: CHUNKS }
    }

    /// A buffer of [`CHUNK`] bytes. Waits until one comes home.
    pub(crate) fn take(&mut self) -> Vec<u8> {
        if let Ok(buffer) = self.free.try_recv() {
            return buffer;
        }
        if self.unborn > 0 {
            self.unborn -= 1;
            return vec![0; CHUNK];
        }
        // The pool holds a sender itself, so that the channel can't be closed.
        self.free.recv().unwrap_or_else(|_| vec![0; CHUNK])
    }

    pub(crate) fn chunk(&self, data: Vec<u8>, length: usize) -> Arc<Chunk> {
        Arc::new(Chunk { data, length, home: self.home.clone() })
    }
}

/// Reads the chunks that come through a channel, until the other side hangs up.
pub(crate) struct ChunkReader {
    chunks: Receiver<Arc<Chunk>>,
    current: Option<Arc<Chunk>>,
    position: usize,
}

impl ChunkReader {
    pub(crate) fn new(chunks: Receiver<Arc<Chunk>>) -> ChunkReader {
        ChunkReader { chunks, current: None, position: 0 }
    }
}

impl BufRead for ChunkReader {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.as_ref().is_none_or(|chunk| self.position >= chunk.length) {
            // Let go of the old one first: the producer may be waiting for it.
            self.current = None;
            self.position = 0;
            match self.chunks.recv() {
                Ok(chunk) => self.current = Some(chunk),
                Err(_) => return Ok(&[]),
            }
        }
        Ok(self.current.as_ref().map_or(&[], |chunk| &chunk.bytes()[self.position..]))
    }

    fn consume(&mut self, amount: usize) {
        self.position += amount;
    }
}

impl Read for ChunkReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let part = self.fill_buf()?;
        let length = part.len().min(buf.len());
        buf[..length].copy_from_slice(&part[..length]);
        self.consume(length);
        Ok(length)
    }
}
