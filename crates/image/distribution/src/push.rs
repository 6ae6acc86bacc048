//! Pushing: blobs in one piece (POST, then PUT), manifests under a tag or their digest.

use bytes::Bytes;
use reqwest::{Method, header};

use crate::transport::{Call, Session};
use crate::{Descriptor, Digest, Error, Repository, Result};

impl Repository {
    /// Pushes a blob, unless the registry has it, and returns its descriptor.
    ///
    /// # Errors
    /// When the registry refuses it or can't be reached.
    pub async fn push_blob(&self, media_type: &str, bytes: impl Into<Bytes>) -> Result<Descriptor> {
        let bytes = bytes.into();
        let session = self.origin()?;
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest, size: bytes.len() as u64 };
        let what = crate::error::blob_name(self.name(), &descriptor);
        let path = format!("blobs/{}", descriptor.digest);
        match session.exchange(&Call::new(Method::HEAD, path, what.clone()).pushing()).await {
            Ok(_) => return Ok(descriptor),
            Err(Error::NotFound { .. }) => {}
            Err(error) => return Err(error),
        }
        let start = Call::new(Method::POST, "blobs/uploads/".to_owned(), what.clone()).pushing();
        let answer = session.exchange(&start.body(Bytes::new())).await?;
        let location = location(session, &what, &answer, &descriptor.digest)?;
        let put = Call::to(Method::PUT, location, what).pushing();
        let put = put.header(header::CONTENT_TYPE, "application/octet-stream").body(bytes);
        session.exchange(&put).await?;
        Ok(descriptor)
    }

    /// Pushes a manifest or an index as `target`, a tag or its digest, and returns its descriptor. What it points to must be there before.
    ///
    /// # Errors
    /// When the registry refuses it or can't be reached.
    pub async fn push_manifest(
        &self,
        target: &str,
        media_type: &str,
        bytes: impl Into<Bytes>,
    ) -> Result<Descriptor> {
        let bytes = bytes.into();
        let what = format!("manifest {target} of {}", self.name());
        let call = Call::new(Method::PUT, format!("manifests/{target}"), what).pushing();
        let digest = Digest::sha256(&bytes);
        let descriptor = Descriptor { media_type: media_type.to_owned(), digest, size: bytes.len() as u64 };
        self.origin()?.exchange(&call.header(header::CONTENT_TYPE, media_type).body(bytes)).await?;
        Ok(descriptor)
    }
}

/// Where the upload goes: absolute or relative, with or without a query of its own.
fn location(
    session: &Session,
    what: &str,
    answer: &reqwest::Response,
    digest: &Digest,
) -> Result<reqwest::Url> {
    let value = answer.headers().get(header::LOCATION).and_then(|v| v.to_str().ok());
    let url = value.and_then(|value| answer.url().join(value).ok());
    let mut url = url.ok_or_else(|| Error::Protocol {
        operation: format!("push {what}"),
        host: session.host().to_owned(),
        reason: "no usable Location to upload to".to_owned(),
    })?;
    url.query_pairs_mut().append_pair("digest", digest.as_str());
    Ok(url)
}
