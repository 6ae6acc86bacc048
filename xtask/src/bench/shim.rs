//! `cargo xtask bench shim`: builds, then runs integration/shim/examples/figures, which speaks the shim's protocol.

use anyhow::{Result, bail};

use crate::run::{cargo, run};
use crate::{build, setup};

/// The options are how many pods (50), how many rounds of execs (3), and after how many execs the shim is looked at
/// again (2,000).
pub(crate) fn bench(options: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("bench creates containers: run it as root");
    }
    setup::install(&setup::BENCH_SHIM)?;
    let bin = build::build()?;
    let mut command =
        cargo(&["run", "--quiet", "--package", "integration-shim", "--example", "figures", "--"]);
    run(command.args(options).env("CORTEN_BIN_DIR", bin))
}
