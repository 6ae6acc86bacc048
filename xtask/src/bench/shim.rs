//! `cargo xtask bench shim`: builds, then runs integration/shim/examples/figures, which speaks the shim's protocol.

use std::path::PathBuf;

use anyhow::{Result, bail};

use crate::run::{cargo, run};
use crate::{build, setup};

/// The options are how many pods (50), how many rounds of execs (3), and after how many execs the shim is looked at
/// again (2,000); or `probes`, how many pods (100), and for how many seconds (120) each is probed once a second. Who has
/// built the binaries already says where they are by `CORTEN_BIN_DIR`.
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("bench creates containers: run it as root");
    }
    setup::install(&setup::BENCH_SHIM)?;
    let bin = match std::env::var_os("CORTEN_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => build::build()?,
    };
    let mut command =
        cargo(&["run", "--quiet", "--package", "integration-shim", "--example", "figures", "--"]);
    run(command.args(options).env("CORTEN_BIN_DIR", bin))
}
