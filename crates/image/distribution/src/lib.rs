//! Registry client: references, resolve, fetch, push, authentication, mirrors.
//!
//! Speaks the OCI distribution API (which is Docker's registry API v2) over HTTP. [`Reference`] is a parsed image name;
//! [`Client`] holds connections and configuration; [`Repository`] is one repository at one registry with the credentials of one
//! caller, and has the verbs.
//!
//! Nothing that a registry says is trusted: sizes are capped, digests of manifests computed here, `Authorization` isn't sent to another
//! host than the one it is for. Blobs aren't verified here (only counted): whoever stores them hashes them anyway.
#![forbid(unsafe_code)]

mod auth;
mod blob;
mod challenge;
mod client;
mod config;
mod descriptor;
mod error;
mod manifest;
mod push;
mod reference;
mod retry;
mod tls;
mod transport;

pub use auth::Auth;
pub use blob::Blob;
pub use client::{Client, Repository};
pub use config::{Registry, RegistryConfig};
pub use corten_content::{Digest, InvalidDigest};
pub use descriptor::{Descriptor, media_type};
pub use error::Error;
pub use manifest::{MAX_MANIFEST_BYTES, Manifest};
pub use reference::{InvalidReference, Reference};

/// What every fallible function of this crate returns.
pub type Result<T, E = Error> = std::result::Result<T, E>;
