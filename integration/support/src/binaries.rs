//! Where the binaries under test are.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};

/// The path of one of our binaries: `corten`, `containerd-shim-corten-v2`, `cortend`, `cortenctl` or `workload`.
///
/// `cargo xtask build` puts them into `target/bin`; `CORTEN_BIN_DIR` names another place.
///
/// # Errors
/// When it hasn't been built.
pub fn binary(name: &str) -> Result<PathBuf> {
    let dir = std::env::var_os("CORTEN_BIN_DIR").map_or_else(default_dir, PathBuf::from);
    let path = dir.join(name);
    if !path.is_file() {
        bail!("{} has not been built: run `cargo xtask build`", path.display());
    }
    Ok(std::fs::canonicalize(path)?)
}

fn default_dir() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    target.unwrap_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../target")).join("bin")
}
