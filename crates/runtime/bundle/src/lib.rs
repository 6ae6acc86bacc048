//! Loads an OCI bundle (runtime-spec, "Filesystem Bundle") and reports everything wrong with its config.json.
//!
//! Nothing here touches the host: only config.json is read. Whether the rootfs is there, a device exists or a
//! namespace can be joined is for who runs the bundle to find out.
#![forbid(unsafe_code)]

mod error;
mod place;
mod validate;

pub use error::{Error, Problem, Result};
use oci_spec::runtime::Spec;
use std::{
    fs,
    path::{Path, PathBuf},
};
pub use validate::validate;

/// A directory with a config.json, loaded.
#[derive(Debug, Clone)]
pub struct Bundle {
    /// The directory, absolute.
    pub path: PathBuf,
    /// config.json.
    pub spec: Spec,
}

impl Bundle {
    /// Reads `dir/config.json`. Doesn't [`validate`] it.
    ///
    /// # Errors
    /// [`Error::Read`]; [`Error::Json`], which says at which line, column and field.
    pub fn load(dir: impl AsRef<Path>) -> Result<Self> {
        let dir = dir.as_ref();
        let path = std::path::absolute(dir).map_err(|source| Error::Read { path: dir.to_owned(), source })?;
        let config = path.join("config.json");
        let json = fs::read(&config).map_err(|source| Error::Read { path: config.clone(), source })?;
        let spec = parse(&json, &config)?;
        Ok(Self { path, spec })
    }

    /// All that is wrong with the config; empty if it can be run as far as one can tell without the host.
    #[must_use]
    pub fn problems(&self) -> Vec<Problem> {
        validate(&self.spec)
    }

    /// `root.path`, absolute; the bundle itself if there is no `root`.
    #[must_use]
    pub fn rootfs(&self) -> PathBuf {
        self.spec.root().as_ref().map_or_else(|| self.path.clone(), |root| self.path.join(root.path()))
    }
}

/// Parses any JSON document of the runtime-spec (config.json, process.json, resources), naming line, column and
/// field if it can't be. `path` is only for the error message.
///
/// # Errors
/// [`Error::Json`].
pub fn parse<T: serde::de::DeserializeOwned>(json: &[u8], path: &Path) -> Result<T> {
    serde_json::from_slice(json).map_err(|source| Error::Json {
        path: path.to_owned(),
        field: place::field_at(json, source.line(), source.column()),
        source,
    })
}
