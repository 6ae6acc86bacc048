//! Manifests as bytes; what they mean is the image library's matter.

use bytes::Bytes;
use corten_content::{Algorithm, Hasher};
use serde::Deserialize;

use crate::Descriptor;

/// Larger answers to a request for a manifest are refused, in bytes. The distribution-spec asks clients for 4 MiB at least.
pub const MAX_MANIFEST_BYTES: u64 = 8 << 20;

/// Indexes first: a registry that converts should rather give those.
pub(crate) const ACCEPT: &str = "application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.list.v2+json, \
     application/vnd.oci.image.manifest.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1";

/// A manifest or index as the registry serves it: its digest is that of exactly these bytes.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// Its media type, and the digest and size computed from the bytes.
    pub descriptor: Descriptor,
    /// The JSON text.
    pub bytes: Bytes,
}

impl Manifest {
    /// The `mediaType` inside counts more than the header, which registries and caches get wrong; the digest vouches for it.
    pub(crate) fn new(content_type: &str, bytes: Bytes, algorithm: Option<Algorithm>) -> Manifest {
        #[derive(Deserialize)]
        #[serde(rename_all = "camelCase")]
        struct Head {
            media_type: Option<String>,
        }
        let mut hasher = Hasher::new(algorithm.unwrap_or(Algorithm::Sha256));
        hasher.update(&bytes);
        let header = content_type.split(';').next().unwrap_or_default().trim().to_owned();
        let inside = serde_json::from_slice::<Head>(&bytes).ok().and_then(|head| head.media_type);
        let descriptor = Descriptor {
            media_type: inside.unwrap_or(header),
            digest: hasher.finish(),
            size: bytes.len() as u64,
        };
        Manifest { descriptor, bytes }
    }
}
