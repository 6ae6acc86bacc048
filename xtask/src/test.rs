//! `cargo xtask test`: the lanes.
//!
//! The name of a test binary says what it needs: `tests/root*.rs` needs root and the built binaries, everything else
//! needs nothing. A test that can't run prints `SKIP <test>: <reason>` on standard error; here those are counted. In a
//! lane that promised to run a test, `CORTEN_LANE` turns a skip into a failure.

use std::io::{BufRead, BufReader, Read};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, bail};
use serde_json::Value;

use crate::run::{cargo, root as repository};
use crate::{build, check, setup};

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
    passed: u32,
    failed: u32,
    skipped: u32,
}

impl Counts {
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

/// All that CI runs.
pub(crate) fn all() -> Result<()> {
    // Before the check lane: some of its tests compare with Debian's libraries where they are installed.
    prepare()?;
    check::check()?;
    root(&[])
}

/// What the root lane needs of the machine.
fn prepare() -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the root lane creates containers: run it as root (`cargo xtask check` is for everybody)");
    }
    setup::install(&[&setup::QUICKSTART[..], &setup::TESTS].concat())
}

/// Builds the binaries, then runs the privileged tests whose names contain one of `filter`.
pub(crate) fn root(filter: &[&str]) -> Result<()> {
    prepare()?;
    let bin = build::build()?;
    run_in(Needs::Root, filter, Some(bin))?.verdict()
}

/// Builds and runs the tests of a lane that needs no binaries.
pub(crate) fn run(needs: Needs, filter: &[&str]) -> Result<Counts> {
    run_in(needs, filter, None)
}

fn run_in(needs: Needs, filter: &[&str], bin: Option<PathBuf>) -> Result<Counts> {
    let mut total = Counts::default();
    let mut failed = Vec::new();
    for test in test_binaries(needs)? {
        let started = Instant::now();
        let (counts, ok) = run_one(&test, filter, bin.as_ref())?;
        eprintln!(
            "{:<44} {:>4} passed {:>3} failed {:>3} skipped  {:.1} s",
            test.name,
            counts.passed,
            counts.failed,
            counts.skipped,
            started.elapsed().as_secs_f64()
        );
        total.passed += counts.passed;
        total.failed += counts.failed;
        total.skipped += counts.skipped;
        if !ok {
            failed.push(test.name);
            // A binary that died without a verdict of its own is a failure too.
            total.failed += u32::from(counts.failed == 0);
        }
    }
    if !failed.is_empty() {
        eprintln!("failed: {}", failed.join(", "));
    }
    Ok(total)
}

struct TestBinary {
    name: String,
    path: PathBuf,
    directory: PathBuf,
}

/// Builds every test and returns those of the lane, in the order of their names.
fn test_binaries(needs: Needs) -> Result<Vec<TestBinary>> {
    eprintln!("+ cargo test --workspace --no-run");
    let mut command = cargo(&[
        "test",
        "--workspace",
        "--locked",
        "--no-run",
        "--message-format",
        "json-render-diagnostics",
    ]);
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

/// Runs one test binary; its failures are passed on, its counts are read from its closing line.
fn run_one(test: &TestBinary, filter: &[&str], bin: Option<&PathBuf>) -> Result<(Counts, bool)> {
    let mut command = Command::new(&test.path);
    // As `cargo test` does it: in the package's directory.
    command.current_dir(&test.directory).stdin(Stdio::null()).args(filter);
    // A failing test's error has its story; a stack of libtest's own frames beside it hides it.
    command.env("RUST_LIB_BACKTRACE", "0");
    if let Some(bin) = bin {
        // Privileged tests look at the whole machine (mounts, links, cgroups), so one at a time.
        command.arg("--test-threads=1").env("CORTEN_BIN_DIR", bin).env("CORTEN_LANE", "root");
    }
    let mut child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .with_context(|| format!("can't start {}", test.path.display()))?;
    let stderr = child.stderr.take().context("no standard error")?;
    let skips = std::thread::spawn(move || count_skips(stderr));
    let mut text = String::new();
    child.stdout.take().context("no standard output")?.read_to_string(&mut text)?;
    let status = child.wait()?;
    let skipped = skips.join().unwrap_or(0);
    if !status.success() {
        println!("--- {}\n{text}", test.name);
    }
    let mut counts = closing_line(&text);
    counts.passed = counts.passed.saturating_sub(skipped);
    counts.skipped += skipped;
    Ok((counts, status.success()))
}

/// Passes standard error on and counts the tests that said they were skipped.
fn count_skips(stderr: impl Read) -> u32 {
    let mut skips = 0;
    for line in BufReader::new(stderr).lines().map_while(Result::ok) {
        skips += u32::from(line.starts_with("SKIP "));
        eprintln!("{line}");
    }
    skips
}

/// The counts in libtest's `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
fn closing_line(text: &str) -> Counts {
    let mut counts = Counts::default();
    let Some(line) = text.lines().rev().find(|line| line.starts_with("test result: ")) else { return counts };
    for part in line.split(['.', ';']) {
        let mut words = part.split_whitespace();
        let (Some(number), Some(what)) = (words.next().and_then(|n| n.parse::<u32>().ok()), words.next())
        else {
            continue;
        };
        match what {
            "passed" => counts.passed = number,
            "failed" => counts.failed = number,
            "ignored" => counts.skipped = number,
            _ => {}
        }
    }
    counts
}

#[cfg(test)]
mod tests {
    use super::{closing_line, count_skips};

    #[test]
    fn counts_come_from_the_closing_line() {
        let counts = closing_line(
            "running 3 tests\n\ntest result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured\n",
        );
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 2, 1));
        assert_eq!(closing_line("nothing").passed, 0);
    }

    #[test]
    fn skips_are_counted_on_standard_error() {
        assert_eq!(count_skips(&b"SKIP a: needs root\nnoise\nSKIP b: needs runc\n"[..]), 2);
    }
}
