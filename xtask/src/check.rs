//! `cargo xtask check`: what needs nothing but a toolchain.

use anyhow::Result;

use crate::layers;
use crate::run::{cargo, run};
use crate::test::{self, Needs};

/// Packages with examples in their documentation.
const WITH_EXAMPLES: [&str; 6] =
    ["corten-sys", "corten-state", "corten-bundle", "corten-seccomp", "corten-cgroups", "corten-container"];

/// Format, lints, layers, generated code, unit tests, examples in the documentation.
pub(crate) fn check() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    layers::check()?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    test::run(Needs::Nothing, &[])?.verdict()?;
    let examples = WITH_EXAMPLES.iter().flat_map(|package| ["--package", package]);
    run(cargo(&["test", "--doc", "--locked", "--quiet"]).args(examples))
}
