//! `cargo xtask test`: the lanes.
//!
//! The name of a test binary says what it needs: `tests/root*.rs` needs root and the built binaries, everything else
//! needs nothing. A test that can't run prints `SKIP <test>: <reason>` on standard error; here those are counted. In a
//! lane that promised to run a test, `CORTEN_LANE` turns a skip into a failure.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, root as repository};
use crate::{build, check, setup, vm};

mod reap;
mod runner;

pub(crate) use reap::reap;
use runner::Setting;
pub(crate) use runner::{TestBinary, closing_line};

/// Cargo's option for all packages.
pub(crate) const EVERYTHING: &[&str] = &["--workspace"];

/// What the test binaries of a lane need.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Needs {
    /// A toolchain.
    Nothing,
    /// Root, a kernel, the built binaries, Debian's peers.
    Root,
}

/// The counts of a lane.
#[derive(Default, Clone, Copy)]
pub(crate) struct Counts {
    pub(crate) passed: u32,
    pub(crate) failed: u32,
    pub(crate) skipped: u32,
}

impl std::iter::Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Self::default(), |sum, one| Self {
            passed: sum.passed + one.passed,
            failed: sum.failed + one.failed,
            skipped: sum.skipped + one.skipped,
        })
    }
}

impl Counts {
    /// Adds a binary's counts; a test that said it was skipped has passed as far as libtest knows.
    fn add(&mut self, other: Counts, skips: u32) {
        self.passed += other.passed.saturating_sub(skips);
        self.failed += other.failed;
        self.skipped += other.skipped + skips;
    }

    /// Prints the counts, and fails when a test failed or none ran.
    pub(crate) fn verdict(self) -> Result<()> {
        println!("{} passed, {} failed, {} skipped", self.passed, self.failed, self.skipped);
        if self.failed > 0 {
            bail!("{} tests failed", self.failed);
        }
        if self.passed == 0 {
            bail!("no test ran");
        }
        Ok(())
    }
}

type Lane = fn() -> Result<()>;

/// All that CI runs. A lane that fails doesn't keep the others from telling what they have to tell.
pub(crate) fn all() -> Result<()> {
    // Before the check lane: some of its tests compare with Debian's libraries where they are installed.
    prepare()?;
    let mut failed = Vec::new();
    let lanes: [(&str, Lane); 3] = [("check", check::check), ("root", || root(&[])), ("vm", || vm::vm(&[]))];
    for (name, lane) in lanes {
        let started = Instant::now();
        let result = lane();
        eprintln!("the {name} lane took {:.0} s", started.elapsed().as_secs_f64());
        if let Err(error) = result {
            eprintln!("the {name} lane failed: {error:#}");
            failed.push(name);
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("failed: {}", failed.join(", "))
}

/// What the root lane needs of the machine.
pub(crate) fn prepare() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the root lane creates containers: run it as root (`cargo xtask check` is for everybody)");
    }
    setup::install(&[&setup::QUICKSTART[..], &setup::TESTS, &setup::INTEROP].concat())
}

/// Builds the binaries, then runs the privileged tests whose names contain one of `filter`.
pub(crate) fn root(filter: &[&str]) -> Result<()> {
    privileged(EVERYTHING, filter)
}

/// The part of the root lane with Debian's containerd, podman and Docker.
pub(crate) fn interop(filter: &[&str]) -> Result<()> {
    privileged(&["--package", "integration-interop"], filter)
}

fn privileged(packages: &[&str], filter: &[&str]) -> Result<()> {
    prepare()?;
    let bin = build::build()?;
    build::failpoints()?;
    run_in(Needs::Root, packages, filter, Some(bin))?.verdict()
}

/// Builds and runs the tests of a lane that needs no binaries.
pub(crate) fn run(needs: Needs, filter: &[&str]) -> Result<Counts> {
    run_in(needs, EVERYTHING, filter, None)
}

fn run_in(needs: Needs, packages: &[&str], filter: &[&str], bin: Option<PathBuf>) -> Result<Counts> {
    let mut total = Counts::default();
    let (mut failed, mut flaky) = (Vec::new(), Vec::new());
    // Not by its path: the check lane's build may have put another program there, and this one is deleted.
    let reaper = bin.is_some().then_some(Path::new("/proc/self/exe"));
    let setting = Setting { filter, bin: bin.as_ref(), reaper, lane: "root" };
    for test in test_binaries(needs, packages)? {
        let started = Instant::now();
        let outcome = test.run(&setting)?;
        let counts = outcome.counts;
        eprintln!(
            "{:<44} {:>4} passed {:>3} failed {:>3} skipped  {:.1} s",
            test.name,
            counts.passed,
            counts.failed,
            counts.skipped,
            started.elapsed().as_secs_f64()
        );
        total.add(counts, 0);
        failed.extend(outcome.failed.iter().map(|name| format!("{}: {name}", test.name)));
        flaky.extend(outcome.flaky.iter().map(|name| format!("{}: {name}", test.name)));
    }
    for name in &flaky {
        eprintln!("flaky (failed, then passed alone): {name}");
    }
    for name in &failed {
        eprintln!("failed: {name}");
    }
    Ok(total)
}

/// Builds the packages' tests and returns those of the lane, in the order of their names.
pub(crate) fn test_binaries(needs: Needs, packages: &[&str]) -> Result<Vec<TestBinary>> {
    eprintln!("+ cargo test {} --no-run", packages.join(" "));
    let mut command = cargo(&["test"]);
    command.args(packages).args(["--locked", "--no-run", "--message-format", "json-render-diagnostics"]);
    let mut child = command.stdout(Stdio::piped()).spawn().context("can't start cargo")?;
    let stdout = child.stdout.take().context("cargo has no standard output")?;
    let mut found = Vec::new();
    for line in BufReader::new(stdout).lines() {
        let message: Value =
            serde_json::from_str(&line?).context("cargo printed something else than JSON")?;
        found.extend(test_binary(&message).filter(|(n, _)| *n == needs).map(|(_, test)| test));
    }
    let status = child.wait()?;
    if !status.success() {
        bail!("cargo test --no-run: {status}");
    }
    found.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(found)
}

fn test_binary(message: &Value) -> Option<(Needs, TestBinary)> {
    if message["reason"] != "compiler-artifact" || message["profile"]["test"] != true {
        return None;
    }
    let path = PathBuf::from(message["executable"].as_str()?);
    let target = message["target"]["name"].as_str()?;
    let is_integration = message["target"]["kind"].as_array()?.iter().any(|kind| kind == "test");
    let manifest = PathBuf::from(message["manifest_path"].as_str()?);
    let directory = manifest.parent()?.to_owned();
    let package = directory.strip_prefix(repository()).unwrap_or(&directory).display().to_string();
    let needs = if is_integration && target.starts_with("root") { Needs::Root } else { Needs::Nothing };
    Some((needs, TestBinary { name: format!("{package} {target}"), path, directory }))
}
