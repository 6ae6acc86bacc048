//! How an image library is set up.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use corten_distribution::RegistryConfig;

/// What [`Images::open`](crate::Images::open) needs to know.
#[derive(Debug, Clone)]
pub struct Config {
    /// Holds `images.redb`, `content/` and `snapshots/`.
    pub root: PathBuf,
    /// How registries are reached.
    pub registries: RegistryConfig,
    /// What images are chosen for.
    pub platform: Platform,
    /// Layers of one image that are downloaded and unpacked at the same time.
    pub max_concurrent_downloads: usize,
    /// Deletes a layer's compressed blob once it is unpacked. Saves disk; the image can't be exported or pushed then.
    pub discard_unpacked_layers: bool,
    /// Flushes a pulled image to the disk before it is recorded, so that it survives a power failure.
    pub sync: bool,
    /// How long an interrupted download waits to be continued before garbage collection removes it.
    pub keep_partial_downloads: Duration,
}

impl Config {
    /// The usual settings over a root directory.
    pub fn new(root: impl Into<PathBuf>) -> Config {
        Config {
            root: root.into(),
            registries: RegistryConfig::default(),
            platform: Platform::host(),
            max_concurrent_downloads: 4,
            discard_unpacked_layers: false,
            sync: true,
            keep_partial_downloads: Duration::from_secs(60 * 60),
        }
    }
}

/// Operating system and processor, in the words of the OCI image-spec (which are Go's).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Platform {
    /// `linux`.
    pub os: String,
    /// `amd64`, `arm64`...
    pub architecture: String,
    /// `v7` of `arm`, `v3` of `amd64`...; none means the basic one.
    pub variant: Option<String>,
}

impl Platform {
    /// The platform this program was built for.
    #[must_use]
    pub fn host() -> Platform {
        let (architecture, variant) = match std::env::consts::ARCH {
            "x86_64" => ("amd64", None),
            "x86" => ("386", None),
            "aarch64" => ("arm64", Some("v8")),
            "arm" => ("arm", Some("v7")),
            "powerpc64" if cfg!(target_endian = "little") => ("ppc64le", None),
            "loongarch64" => ("loong64", None),
            other => (other, None),
        };
        Platform {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: variant.map(str::to_owned),
        }
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        self.variant.iter().try_for_each(|variant| write!(f, "/{variant}"))
    }
}
