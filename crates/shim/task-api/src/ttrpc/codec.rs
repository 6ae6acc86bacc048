//! Frames.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes before each message.
pub const HEADER: usize = 10;
/// The longest message: 4 MiB, the protocol's own limit.
pub const MAX_MESSAGE: usize = 4 << 20;

/// What a frame carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A call.
    Request,
    /// Its answer.
    Response,
    /// Data of a stream, or a type that is unknown: of no use to us.
    Other(u8),
}

impl Kind {
    fn number(self) -> u8 {
        match self {
            Self::Request => 1,
            Self::Response => 2,
            Self::Other(other) => other,
        }
    }
}

/// One message and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// Call and answer have the same; the client's are odd.
    pub stream: u32,
    /// What `data` is.
    pub kind: Kind,
    /// A protobuf message.
    pub data: Vec<u8>,
}

/// Why no frame could be read.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The message was longer than the protocol allows. It has been skipped: the connection is still usable.
    #[error("message of {length} bytes on stream {stream} is longer than {MAX_MESSAGE}")]
    TooLong {
        /// The stream it came on.
        stream: u32,
        /// Its type.
        kind: u8,
        /// Its length as the header has it.
        length: usize,
    },
    /// The other side is gone, or went in the middle of a frame (then UnexpectedEof).
    #[error("read a frame")]
    Io(#[from] io::Error),
}

/// Length, stream and kind from a header.
#[must_use]
pub fn decode_header(header: [u8; HEADER]) -> (usize, u32, Kind) {
    let [a, b, c, d, s, t, u, v, kind, _flags] = header;
    let kind = match kind {
        1 => Kind::Request,
        2 => Kind::Response,
        other => Kind::Other(other),
    };
    (u32::from_be_bytes([a, b, c, d]) as usize, u32::from_be_bytes([s, t, u, v]), kind)
}

/// Reads the next frame; None when the other side has closed between two frames.
///
/// # Errors
/// [`FrameError`]
pub async fn read_frame(reader: &mut (impl AsyncRead + Unpin)) -> Result<Option<Frame>, FrameError> {
    let mut header = [0; HEADER];
    let mut filled = 0;
    while filled < HEADER {
        match reader.read(&mut header[filled..]).await? {
            0 if filled == 0 => return Ok(None),
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => filled += n,
        }
    }
    let (length, stream, kind) = decode_header(header);
    if length > MAX_MESSAGE {
        skip(reader, length).await?;
        return Err(FrameError::TooLong { stream, kind: kind.number(), length });
    }
    // Grown as bytes arrive: a header alone makes nobody allocate 4 MiB.
    let mut data = Vec::with_capacity(length.min(16 << 10));
    let read = reader.take(length as u64).read_to_end(&mut data).await?;
    if read < length {
        return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
    }
    Ok(Some(Frame { stream, kind, data }))
}

async fn skip(reader: &mut (impl AsyncRead + Unpin), length: usize) -> io::Result<()> {
    let mut left = length;
    let mut scrap = [0; 1024];
    while left > 0 {
        let want = left.min(scrap.len());
        match reader.read(&mut scrap[..want]).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => left -= n,
        }
    }
    Ok(())
}

/// Writes a frame.
///
/// # Errors
/// InvalidInput when the message is too long (nothing is written then), else what writing says.
pub async fn write_frame(writer: &mut (impl AsyncWrite + Unpin), frame: &Frame) -> io::Result<()> {
    if frame.data.len() > MAX_MESSAGE {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "message is longer than 4 MiB"));
    }
    let length = u32::try_from(frame.data.len()).unwrap_or(u32::MAX);
    let mut bytes = Vec::with_capacity(HEADER + frame.data.len());
    bytes.extend_from_slice(&length.to_be_bytes());
    bytes.extend_from_slice(&frame.stream.to_be_bytes());
    bytes.extend_from_slice(&[frame.kind.number(), 0]);
    bytes.extend_from_slice(&frame.data);
    writer.write_all(&bytes).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn frames_survive_the_round_trip() {
        block(async {
            for (kind, data) in
                [(Kind::Request, vec![]), (Kind::Response, vec![7; 70_000]), (Kind::Other(3), vec![1])]
            {
                let frame = Frame { stream: 0x0102_0305, kind, data };
                let mut wire = Vec::new();
                write_frame(&mut wire, &frame).await.unwrap();
                assert_eq!(wire.len(), HEADER + frame.data.len());
                assert_eq!(read_frame(&mut wire.as_slice()).await.unwrap(), Some(frame));
            }
        });
    }

    #[test]
    fn the_header_is_big_endian() {
        let header = [0, 0, 1, 2, 0, 0, 0, 5, 2, 0xff];
        assert_eq!(decode_header(header), (258, 5, Kind::Response));
    }

    #[test]
    fn a_closed_connection_ends_between_frames_only() {
        block(async {
            assert!(matches!(read_frame(&mut [].as_slice()).await, Ok(None)));
            let mut wire = Vec::new();
            let frame = Frame { stream: 1, kind: Kind::Request, data: vec![1, 2, 3] };
            write_frame(&mut wire, &frame).await.unwrap();
            for cut in 1..wire.len() {
                assert!(
                    matches!(read_frame(&mut &wire[..cut]).await, Err(FrameError::Io(e)) if e.kind() == io::ErrorKind::UnexpectedEof),
                    "cut after {cut} bytes"
                );
            }
        });
    }

    #[test]
    fn too_long_a_message_is_skipped_and_the_next_one_read() {
        block(async {
            let length = MAX_MESSAGE + 1;
            let mut wire = u32::try_from(length).unwrap().to_be_bytes().to_vec();
            wire.extend_from_slice(&[0, 0, 0, 9, 1, 0]);
            wire.resize(HEADER + length, 0xaa);
            let next = Frame { stream: 11, kind: Kind::Request, data: vec![4] };
            write_frame(&mut wire, &next).await.unwrap();
            let mut reader = wire.as_slice();
            assert!(
                matches!(read_frame(&mut reader).await, Err(FrameError::TooLong { stream: 9, length: l, .. }) if l == length)
            );
            assert_eq!(read_frame(&mut reader).await.unwrap(), Some(next));
        });
    }

    #[test]
    fn too_long_a_message_is_not_sent() {
        block(async {
            let mut wire = Vec::new();
            let frame = Frame { stream: 1, kind: Kind::Request, data: vec![0; MAX_MESSAGE + 1] };
            assert!(write_frame(&mut wire, &frame).await.is_err());
            assert!(wire.is_empty());
        });
    }
}
