//! `cargo xtask check`: what needs nothing but a toolchain.

use anyhow::Result;

use crate::layers;
use crate::run::{cargo, run};
use crate::test::{self, Needs};

/// Format, lints, layers, generated code, unit tests.
pub(crate) fn check() -> Result<()> {
    run(&mut cargo(&["fmt", "--all", "--check"]))?;
    layers::check()?;
    run(&mut cargo(&["clippy", "--workspace", "--all-targets", "--locked", "--", "-D", "warnings"]))?;
    test::run(Needs::Nothing, &[])?.verdict()
}
