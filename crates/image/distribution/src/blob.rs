//! Reading a blob, and going on where the connection broke.

use bytes::Bytes;
use reqwest::{Method, Response, StatusCode, header};

use crate::error::blob_name;
use crate::retry::{Attempts, Failure};
use crate::transport::{Call, Session};
use crate::{Descriptor, Error, Result};

/// A blob on its way. Yields exactly as many bytes as the descriptor promises, or an error.
#[derive(Debug)]
pub struct Blob {
    session: Session,
    what: String,
    descriptor: Descriptor,
    /// Where in the blob the next byte belongs.
    offset: u64,
    /// Bytes to throw away first, because the server doesn't know ranges and began at the start.
    skip: u64,
    response: Option<Response>,
}

impl Blob {
    pub(crate) async fn open(
        session: Session,
        repository: &str,
        descriptor: &Descriptor,
        offset: u64,
    ) -> Result<Blob> {
        let what = blob_name(repository, descriptor);
        let mut blob =
            Blob { session, what, descriptor: descriptor.clone(), offset, skip: 0, response: None };
        if offset < descriptor.size {
            let session = blob.session.clone();
            let mut attempts = Attempts::new(session.config());
            while let Err(failure) = blob.connect().await {
                attempts.after(failure).await?;
            }
        }
        Ok(blob)
    }

    /// Where in the blob the next chunk begins, in bytes.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// The next bytes, or `None` at the end.
    ///
    /// # Errors
    /// When the connection broke too often without progress, or the registry sends more than it may.
    pub async fn chunk(&mut self) -> Result<Option<Bytes>> {
        let session = self.session.clone();
        let mut attempts = Attempts::new(session.config());
        loop {
            if self.offset == self.descriptor.size && self.response.is_none() {
                return Ok(None);
            }
            let failure = match self.receive().await {
                Ok(Some(bytes)) if bytes.is_empty() => {
                    attempts.progressed();
                    continue;
                }
                Ok(received) => return Ok(received),
                Err(failure) => failure,
            };
            self.response = None;
            attempts.after(failure).await?;
        }
    }

    async fn receive(&mut self) -> Result<Option<Bytes>, Failure> {
        if self.response.is_none() {
            self.connect().await?;
        }
        let Some(response) = self.response.as_mut() else { return Ok(None) };
        let mut bytes = match response.chunk().await {
            Ok(Some(bytes)) => bytes,
            Ok(None) if self.offset == self.descriptor.size => {
                self.response = None;
                return Ok(None);
            }
            Ok(None) => return Err(self.broken("the answer ended early".into()).into()),
            Err(error) => return Err(self.broken(Box::new(error.without_url())).into()),
        };
        let skipped = usize::try_from(self.skip).map_or(bytes.len(), |skip| skip.min(bytes.len()));
        self.skip -= skipped as u64;
        let bytes = bytes.split_off(skipped);
        self.offset += bytes.len() as u64;
        if self.offset > self.descriptor.size {
            return Err(self.size_mismatch(self.offset).into());
        }
        Ok(Some(bytes))
    }

    /// Asks for the blob from where it is needed.
    async fn connect(&mut self) -> Result<(), Failure> {
        let mut call = Call::new(Method::GET, format!("blobs/{}", self.descriptor.digest), self.what.clone());
        if self.offset > 0 {
            call = call.header(header::RANGE, &format!("bytes={}-", self.offset));
        }
        let response = self.session.attempt(&call).await?;
        let (skip, total) = match response.status() {
            StatusCode::PARTIAL_CONTENT => {
                let range = response.headers().get(header::CONTENT_RANGE).and_then(|v| v.to_str().ok());
                let Some((start, total)) = range.and_then(content_range) else {
                    return Err(self.protocol(&call, "206 without a usable Content-Range").into());
                };
                if start != self.offset {
                    return Err(self.protocol(&call, "it sends another range than asked for").into());
                }
                (0, total)
            }
            _ => (self.offset, response.content_length()),
        };
        if let Some(total) = total.filter(|total| *total != self.descriptor.size) {
            return Err(self.size_mismatch(total).into());
        }
        self.skip = skip;
        self.response = Some(response);
        Ok(())
    }

    fn broken(&self, source: Box<dyn std::error::Error + Send + Sync>) -> Error {
        let operation = format!("fetch {} from byte {}", self.what, self.offset);
        Error::Broken { operation, host: self.session.host().to_owned(), source }
    }

    fn protocol(&self, call: &Call, reason: &str) -> Error {
        Error::Protocol {
            operation: call.operation(),
            host: self.session.host().to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn size_mismatch(&self, actual: u64) -> Error {
        Error::SizeMismatch {
            what: self.what.clone(),
            host: self.session.host().to_owned(),
            expected: self.descriptor.size,
            actual,
        }
    }
}

/// Start and total of `bytes 5-9/10`; the total may be unknown (`*`).
fn content_range(value: &str) -> Option<(u64, Option<u64>)> {
    let (range, total) = value.trim().strip_prefix("bytes ")?.split_once('/')?;
    let (start, _) = range.split_once('-')?;
    let total = if total == "*" { None } else { Some(total.parse().ok()?) };
    Some((start.trim().parse().ok()?, total))
}

#[cfg(test)]
mod tests {
    use super::content_range;

    #[test]
    fn content_ranges() {
        assert_eq!(content_range("bytes 5-9/10"), Some((5, Some(10))));
        assert_eq!(content_range("bytes 5-9/*"), Some((5, None)));
        for bad in ["", "bytes", "bytes */10", "items 5-9/10", "bytes a-b/c", "bytes 5-9"] {
            assert_eq!(content_range(bad), None, "{bad}");
        }
    }
}
