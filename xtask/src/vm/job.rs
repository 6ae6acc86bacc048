//! The disk that brings tests into a guest, and what comes out of it.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use super::guest::Guest;
use super::machine::{Said, tail};
use crate::run::run;
use crate::test::{Counts, TestBinary, closing_line};

/// A test binary, and which of its tests.
#[derive(Debug)]
pub(super) struct Chosen<'a> {
    test: &'a TestBinary,
    arguments: String,
}

impl<'a> Chosen<'a> {
    /// `words`: parts of the names of tests, or none for all.
    pub(super) fn new(test: &'a TestBinary, words: &[&str]) -> Self {
        let mut arguments = String::from("--test-threads=1");
        for word in words {
            write!(arguments, " {}", quoted(word)).ok(); // because a String takes everything
        }
        for peer in ["::runc::", "::crun::"] {
            if !words.iter().any(|word| word.contains(peer.trim_matches(':'))) {
                write!(arguments, " --skip {peer}").ok();
            }
        }
        Self { test, arguments }
    }

    /// The name of its file in the guest.
    fn file(&self) -> String {
        self.test.name.replace(['/', ' '], "-")
    }
}

/// A disk with the binaries, the tests and the script that runs them.
#[derive(Debug)]
pub(super) struct Disk(PathBuf);

impl Drop for Disk {
    fn drop(&mut self) {
        fs::remove_file(&self.0).ok(); // because it is below target, where nothing breaks by it
    }
}

impl Disk {
    /// Makes one in `dir`.
    pub(super) fn make(dir: &Path, guest: Guest, chosen: &[Chosen<'_>], bin: &Path) -> Result<Self> {
        let root = dir.join(format!("job-{}-{}", std::process::id(), guest.name()));
        let copy = |from: &Path, to: &str| {
            fs::copy(from, root.join(to)).with_context(|| format!("can't copy {}", from.display()))
        };
        for below in ["bin", "tests"] {
            fs::create_dir_all(root.join(below)).with_context(|| format!("can't make {}", root.display()))?;
        }
        for entry in fs::read_dir(bin).with_context(|| format!("can't list {}", bin.display()))? {
            let entry = entry?;
            if entry.file_type()?.is_file() {
                copy(&entry.path(), &format!("bin/{}", entry.file_name().display()))?;
            }
        }
        for one in chosen {
            copy(&one.test.path, &format!("tests/{}", one.file()))?;
        }
        fs::write(root.join("run"), script(guest, chosen))?;
        let disk = Self(root.with_extension("ext4"));
        let made = run(Command::new("mke2fs")
            .args(["-q", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1,nodiscard", "-d"])
            .args([&root, &disk.0])
            .arg("2G"));
        fs::remove_dir_all(&root).with_context(|| format!("can't remove {}", root.display()))?;
        made.map(|()| disk)
    }

    /// The image file.
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

/// Runs each test binary, between two lines which say so. A test that fails is tried again, alone, as in the root lane.
fn script(guest: Guest, chosen: &[Chosen<'_>]) -> String {
    let mut text = format!(
        "export CORTEN_BIN_DIR=/job/bin CORTEN_LANE=vm-{} RUST_LIB_BACKTRACE=0 HOME=/root\ncd /root\n{RUN}",
        guest.name()
    );
    for one in chosen {
        writeln!(text, "run {} {}", one.file(), one.arguments).ok(); // because a String takes everything
    }
    text + "exit 0\n"
}

const RUN: &str = include_str!("guest/run.sh");

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', r"'\''"))
}

/// Prints how it went, failures with all they said, and counts.
pub(super) fn report(guest: Guest, chosen: &[Chosen<'_>], said: &Said) -> Counts {
    let mut total = Counts::default();
    for one in chosen {
        let (text, code) = section(&said.out, &one.file());
        let (errors, _) = section(&said.err, &one.file());
        let first = text.split("\nagain, alone: ").next().unwrap_or(text);
        let mut counts = closing_line(first);
        // A test may give several reasons, but is one test.
        let skips: BTreeSet<&str> = errors.lines().filter_map(|line| line.strip_prefix("SKIP ")).collect();
        let tests: BTreeSet<&str> =
            skips.iter().filter_map(|skip| skip.split_once(": ")).map(|s| s.0).collect();
        let skipped = u32::try_from(tests.len()).unwrap_or(u32::MAX).min(counts.passed);
        counts.passed -= skipped;
        counts.skipped += skipped;
        for skip in skips {
            eprintln!("SKIP {skip} ({})", guest.name());
        }
        let again: Vec<&str> =
            text.lines().filter_map(|line| line.strip_prefix("@@ passed alone ")).collect();
        for name in &again {
            eprintln!("flaky in the {} guest: {name}", guest.name());
        }
        let again = u32::try_from(again.len()).unwrap_or(u32::MAX);
        if code != Some("0") {
            counts.failed = counts.failed.saturating_sub(again);
            counts.passed += again;
            // One that hung, died or was never reached is a failure too.
            counts.failed += u32::from(!first.contains("\ntest result: "));
            let (name, guest) = (&one.test.name, guest.name());
            println!("--- {name} in the {guest} guest\n{}\n{}", tail(text, 400), tail(errors, 50));
        }
        eprintln!(
            "{:<44} {:>4} passed {:>3} failed {:>3} skipped  in the {} guest",
            one.test.name,
            counts.passed,
            counts.failed,
            counts.skipped,
            guest.name()
        );
        total = [total, counts].into_iter().sum();
    }
    if let Some(failure) = &said.failure {
        println!("--- {failure}");
        total.failed = total.failed.max(1);
    }
    total
}

/// What a test binary printed, and its exit code if it came to its end.
fn section<'a>(out: &'a str, file: &str) -> (&'a str, Option<&'a str>) {
    let begin = format!("@@ begin {file}\n");
    let end = format!("@@ end {file} ");
    let Some((_, rest)) = out.split_once(&*begin) else { return ("", None) };
    match rest.split_once(&*end) {
        Some((text, rest)) => (text, rest.lines().next()),
        None => (rest, None),
    }
}

#[cfg(test)]
mod tests {
    use super::{quoted, section};

    #[test]
    fn sections_end_or_do_not() {
        let out = "@@ begin a\nrunning\ntest result: ok. 1 passed\n\n@@ end a 0\n@@ begin b\nhanging";
        assert_eq!(section(out, "a"), ("running\ntest result: ok. 1 passed\n\n", Some("0")));
        assert_eq!(section(out, "b"), ("hanging", None));
        assert_eq!(section(out, "c"), ("", None));
    }

    #[test]
    fn words_are_quoted() {
        assert_eq!(quoted("a'b $c"), r"'a'\''b $c'");
    }
}
