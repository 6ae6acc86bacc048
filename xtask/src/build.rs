//! `cargo xtask build`: the binaries as they are shipped, in target/bin.
//!
//! What is started for every container is static and small, the rest is an ordinary release build: see
//! docs/decisions/0001-static-binaries.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::run::{cargo, output, root, run};

const STATIC: [(&str, &str); 3] = [
    ("corten-cli", "corten"),
    ("corten-shim", "containerd-shim-corten-v2"),
    ("integration-workload", "workload"),
];
const DYNAMIC: [(&str, &str); 2] = [("corten-daemon", "cortend"), ("corten-ctl", "cortenctl")];

/// Builds everything and returns the directory that holds the binaries.
pub(crate) fn build() -> Result<PathBuf> {
    let target = host()?;
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", target.to_uppercase().replace('-', "_"));
    let mut command = cargo(&["build", "--profile", "static", "--target", &target]);
    // The flags are the target's, not RUSTFLAGS, and --target is given: build scripts and proc macros stay dynamic.
    run(command.env(flags, "-C target-feature=+crt-static").args(packages(&STATIC)))?;
    run(cargo(&["build", "--release"]).args(packages(&DYNAMIC)))?;

    let target_dir = target_dir();
    let bin = target_dir.join("bin");
    std::fs::create_dir_all(&bin).with_context(|| format!("can't create {}", bin.display()))?;
    for (_, name) in STATIC {
        install(&target_dir.join(&target).join("static").join(name), &bin.join(name))?;
    }
    for (_, name) in DYNAMIC {
        install(&target_dir.join("release").join(name), &bin.join(name))?;
    }
    Ok(bin)
}

fn packages(list: &[(&'static str, &'static str)]) -> Vec<&'static str> {
    list.iter().flat_map(|(package, _)| ["--package", package]).collect()
}

/// Where cargo puts things.
pub(crate) fn target_dir() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// The triple that this machine compiles for.
fn host() -> Result<String> {
    let mut rustc = Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let text = String::from_utf8(output(rustc.arg("-vV"))?)?;
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc -vV names no host:\n{text}"),
    }
}

/// Copies a binary beside the others, by rename: an older copy may be running.
fn install(from: &Path, to: &Path) -> Result<()> {
    let new = to.with_extension("new");
    let size = std::fs::copy(from, &new).with_context(|| format!("can't copy {}", from.display()))?;
    std::fs::rename(&new, to).with_context(|| format!("can't write {}", to.display()))?;
    eprintln!("  {:>7.2} MB  {}", size as f64 / 1e6, to.display());
    Ok(())
}
