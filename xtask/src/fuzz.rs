//! `cargo xtask fuzz`: libFuzzer on one of the targets of integration/fuzz.
//!
//! No nightly toolchain and no cargo-fuzz: what libFuzzer needs of the compiler is coverage, and the flags for that are
//! stable. (Sanitizers aren't, but there's nothing for them to find in code without `unsafe`.)

use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::build::host;
use crate::run::{root, run};
use crate::setup;

/// Coverage as libFuzzer reads it.
const FLAGS: [&str; 8] = [
    "--cfg",
    "fuzzing",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
];

/// Fuzzes a target for some seconds (60 unless told). What it finds beside the committed corpus stays in target/; a
/// crash is written there, too: put it into integration/fuzz/corpus/TARGET with what mends it.
pub(crate) fn fuzz(target: &str, seconds: Option<&str>) -> Result<()> {
    let seconds: u32 = seconds.unwrap_or("60").parse().context("the second word is a number of seconds")?;
    let corpus = root().join("integration/fuzz/corpus").join(target);
    if !corpus.is_dir() {
        bail!("there's no target {target:?}: see integration/fuzz/corpus");
    }
    if Command::new("c++").arg("--version").stdout(Stdio::null()).status().is_err() {
        setup::install(&setup::FUZZ)?;
    }
    let (host, out) = (host()?, root().join("target/fuzz"));
    let found = out.join("corpus").join(target);
    let crashes = out.join("crashes").join(target);
    for dir in [&found, &crashes] {
        std::fs::create_dir_all(dir).with_context(|| format!("can't create {}", dir.display()))?;
    }
    let flags = format!("CARGO_TARGET_{}_RUSTFLAGS", host.to_uppercase().replace('-', "_"));
    let mut build = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    build.args(["build", "--release", "--target", &host, "--bin", target, "--target-dir"]).arg(&out);
    // --target keeps the flags from build scripts and macros.
    run(build.env(flags, FLAGS.join(" ")).current_dir(root().join("fuzz")).stdin(Stdio::null()))?;
    let mut fuzzer = Command::new(out.join(&host).join("release").join(target));
    fuzzer.arg(&found).arg(&corpus).arg(format!("-max_total_time={seconds}"));
    fuzzer.arg(format!("-artifact_prefix={}/", crashes.display())).arg("-timeout=20");
    run(fuzzer.stdin(Stdio::null()))
}
