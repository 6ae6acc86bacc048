//! Running one test binary: to the end of its last test, whatever its tests do.
//!
//! A binary that prints nothing for [`SILENCE`] is killed: the test it hung in has failed, and those after it are run
//! all the same. So are those after a test that took the whole binary down. A test that failed is run again, alone: when
//! it passes then, it has passed, and is reported by name as flaky: on a machine with other work, a deadline can be
//! missed that nobody broke.

use std::collections::HashSet;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Duration;

use anyhow::{Context, Result};

use super::Counts;

/// How long a binary may print nothing before it counts as hung. No single test may take that long.
const SILENCE: Duration = Duration::from_secs(300);

/// How often a failed test is run again.
const RETRIES: usize = 2;

/// A test binary, and how it is to be run.
#[derive(Debug)]
pub(crate) struct TestBinary {
    pub(crate) name: String,
    pub(crate) path: PathBuf,
    pub(super) directory: PathBuf,
}

/// Arguments and environment that all runs of a binary share.
pub(super) struct Setting<'a> {
    /// Filters on the names of tests.
    pub(super) filter: &'a [&'a str],
    /// The built binaries, in a lane that needs them: its tests look at the whole machine, so they run one at a time.
    pub(super) bin: Option<&'a PathBuf>,
    /// What collects the orphans of a lane's binaries: a program that is called as `cargo xtask reap` is.
    pub(super) reaper: Option<&'a Path>,
    /// The name of the lane, for tests that must not be skipped in it.
    pub(super) lane: &'a str,
}

/// What became of a binary's tests.
#[derive(Default)]
pub(super) struct Outcome {
    pub(super) counts: Counts,
    /// Those that failed at first and passed alone.
    pub(super) flaky: Vec<String>,
    /// Those that failed, also alone.
    pub(super) failed: Vec<String>,
}

/// One start of a binary.
#[derive(Default)]
struct Run {
    text: String,
    skips: u32,
    hung: bool,
    success: bool,
}

impl TestBinary {
    /// Runs all tests of the binary that the setting's filter chooses.
    pub(super) fn run(&self, setting: &Setting<'_>) -> Result<Outcome> {
        let mut outcome = Outcome::default();
        let mut suspects = Vec::new();
        let filter: Vec<String> = setting.filter.iter().map(|&word| word.to_owned()).collect();
        let mut run = self.start(setting, &filter)?;
        loop {
            if run.success || has_verdict(&run.text) {
                outcome.counts.add(closing_line(&run.text), run.skips);
                suspects.extend(failures(&run.text));
                // All tests have passed, and then it crashed or hung.
                if !run.success && closing_line(&run.text).failed == 0 {
                    println!("--- {} failed after its last test\n{}", self.name, run.text);
                    outcome.counts.failed += 1;
                    outcome.failed.push("(the binary, after its last test)".to_owned());
                }
                break;
            }
            // It died or was killed inside a test. Tests before that one have passed or failed, those after it are still to be run.
            let seen = started(&run.text);
            let why = if run.hung { "printed nothing for too long and was killed" } else { "died" };
            let Some(culprit) = seen.last().cloned() else {
                println!("--- {} {why} before its first test\n{}", self.name, run.text);
                outcome.counts.failed += 1;
                outcome.failed.push("(the binary itself)".to_owned());
                break;
            };
            println!("--- {} {why} in {culprit}\n{}", self.name, run.text);
            outcome.counts.add(verdicts(&run.text), run.skips);
            suspects.extend(seen.iter().filter(|name| verdict(&run.text, name) == Some("FAILED")).cloned());
            suspects.push(culprit);
            outcome.counts.failed += 1;
            let done: HashSet<&String> = seen.iter().collect();
            let rest: Vec<String> =
                self.list(setting, &filter)?.into_iter().filter(|name| !done.contains(name)).collect();
            if rest.is_empty() {
                break;
            }
            let exact: Vec<String> = std::iter::once("--exact".to_owned()).chain(rest).collect();
            run = self.start(setting, &exact)?;
        }
        if !suspects.is_empty() {
            println!("--- {}\n{}", self.name, run.text);
        }
        for name in suspects {
            if self.passes_alone(setting, &name)? {
                outcome.counts.failed = outcome.counts.failed.saturating_sub(1);
                outcome.counts.passed += 1;
                outcome.flaky.push(name);
            } else {
                outcome.failed.push(name);
            }
        }
        Ok(outcome)
    }

    fn passes_alone(&self, setting: &Setting<'_>, name: &str) -> Result<bool> {
        for _ in 0..RETRIES {
            eprintln!("again, alone: {} {name}", self.name);
            let run = self.start(setting, &["--exact".to_owned(), name.to_owned()])?;
            if run.success && closing_line(&run.text).passed == 1 {
                return Ok(true);
            }
            println!("--- {} {name}, alone\n{}", self.name, run.text);
        }
        Ok(false)
    }

    fn list(&self, setting: &Setting<'_>, filter: &[String]) -> Result<Vec<String>> {
        let mut command = self.command(setting, Command::new(&self.path));
        let output =
            command.args(filter).arg("--list").stdin(Stdio::null()).stderr(Stdio::null()).output()?;
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        Ok(text.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect())
    }

    /// Adds to a command that starts the binary what all of them have.
    fn command(&self, setting: &Setting<'_>, mut command: Command) -> Command {
        // As `cargo test` does it: in the package's directory.
        command.current_dir(&self.directory);
        // A failing test's error has its story; a stack of libtest's own frames beside it hides it.
        command.env("RUST_LIB_BACKTRACE", "0");
        if let Some(bin) = setting.bin {
            command.arg("--test-threads=1").env("CORTEN_BIN_DIR", bin).env("CORTEN_LANE", setting.lane);
        }
        command
    }

    fn start(&self, setting: &Setting<'_>, arguments: &[String]) -> Result<Run> {
        let mut command = match setting.reaper {
            None => self.command(setting, Command::new(&self.path)),
            Some(reaper) => {
                let mut command = Command::new(reaper);
                command.arg("reap").arg(&self.path);
                self.command(setting, command)
            }
        };
        command.args(arguments).stdin(if setting.reaper.is_some() { Stdio::piped() } else { Stdio::null() });
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("can't start {}", self.path.display()))?;
        let (sender, events) = channel();
        read(child.stdout.take().context("no standard output")?, &sender, Event::Output);
        read(child.stderr.take().context("no standard error")?, &sender, Event::Error);
        drop(sender);
        let mut run = Run::default();
        watch(&events, &mut run, &mut child)?;
        run.success = child.wait()?.success();
        Ok(run)
    }
}

enum Event {
    Output(String),
    Error(String),
}

/// Sends each line that `source` brings. The thread ends with the last writer of the pipe, which may be a stray child.
fn read(source: impl Read + Send + 'static, sender: &Sender<Event>, event: fn(String) -> Event) {
    let sender = sender.clone();
    std::thread::spawn(move || {
        let mut source = BufReader::new(source);
        let mut line = Vec::new();
        // A test that hangs has printed its name without a newline: read what there is, not whole lines.
        while let Ok(bytes) = source.fill_buf() {
            if bytes.is_empty() {
                break;
            }
            let end = bytes.iter().position(|&byte| byte == b'\n').map_or(bytes.len(), |at| at + 1);
            line.extend_from_slice(&bytes[..end]);
            source.consume(end);
            if sender.send(event(String::from_utf8_lossy(&line).into_owned())).is_err() {
                break;
            }
            line.clear();
        }
    });
}

/// Collects what the binary prints until it has ended or is silent for too long.
fn watch(events: &Receiver<Event>, run: &mut Run, child: &mut Child) -> Result<()> {
    const POLL: Duration = Duration::from_secs(1);
    let mut silent = Duration::ZERO;
    let mut error_line = String::new();
    loop {
        match events.recv_timeout(POLL) {
            Ok(Event::Output(text)) => run.text.push_str(&text),
            Ok(Event::Error(text)) => {
                eprint!("{text}");
                error_line.push_str(&text);
                if error_line.ends_with('\n') {
                    run.skips += u32::from(error_line.starts_with("SKIP "));
                    error_line.clear();
                }
            }
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
            Err(RecvTimeoutError::Timeout) => {
                // Ended, but a child of its own still holds the pipes: there's nothing more to wait for.
                if child.try_wait()?.is_some() {
                    return Ok(());
                }
                silent += POLL;
                if silent >= SILENCE {
                    run.hung = true;
                    // A reaper kills the binary when its input ends.
                    if child.stdin.take().is_none() {
                        child.kill().ok(); // because it may have ended just now
                    }
                    return Ok(());
                }
                continue;
            }
        }
        silent = Duration::ZERO;
    }
}

/// The names of the tests that were started, in order.
fn started(text: &str) -> Vec<String> {
    let line = |line: &str| Some(line.strip_prefix("test ")?.split_once(" ... ")?.0.to_owned());
    text.lines().filter_map(line).collect()
}

/// What libtest says of one test: `ok`, `FAILED`, `ignored`; nothing if it never got there.
fn verdict<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("test {name} ... ");
    text.lines().find_map(|line| line.strip_prefix(&start)).filter(|word| !word.is_empty())
}

/// The counts of a binary that never got to its closing line.
fn verdicts(text: &str) -> Counts {
    let mut counts = Counts::default();
    for name in started(text) {
        match verdict(text, &name) {
            Some("FAILED") => counts.failed += 1,
            Some(word) if word.starts_with("ignored") => counts.skipped += 1,
            Some(_) => counts.passed += 1,
            None => {}
        }
    }
    counts
}

fn has_verdict(text: &str) -> bool {
    text.lines().any(|line| line.starts_with("test result: "))
}

/// The names in libtest's closing list of failures.
fn failures(text: &str) -> Vec<String> {
    let Some((_, list)) = text.rsplit_once("\nfailures:\n") else { return Vec::new() };
    list.lines().map_while(|line| line.strip_prefix("    ")).map(str::to_owned).collect()
}

/// The counts in libtest's `test result: ok. 12 passed; 0 failed; 1 ignored; …`.
pub(crate) fn closing_line(text: &str) -> Counts {
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
    use std::io::Write;
    use std::process::{Command, Stdio};

    use super::{Setting, TestBinary, closing_line, failures};

    const FAILED: &str = "running 3 tests\ntest a ... ok\ntest b ... FAILED\n\nfailures:\n\n---- b stdout ----\nno\n\n\
        failures:\n    b\n    c::d\n\ntest result: FAILED. 12 passed; 2 failed; 1 ignored; 0 measured\n";

    #[test]
    fn counts_come_from_the_closing_line() {
        let counts = closing_line(FAILED);
        assert_eq!((counts.passed, counts.failed, counts.skipped), (12, 2, 1));
        assert_eq!(closing_line("nothing").passed, 0);
    }

    #[test]
    fn names_come_from_the_closing_list() {
        assert_eq!(failures(FAILED), ["b", "c::d"]);
        assert!(failures("test result: ok. 1 passed").is_empty());
    }

    /// A stand-in for a test binary: a script that is called as libtest's binaries are.
    fn binary(script: &str) -> (tempfile::TempDir, TestBinary) {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("binary");
        // Written by another process: a descriptor of ours would be inherited by what the tests beside this one start
        // just then, and a program that is open for writing can't be executed (ETXTBSY).
        let mut writer = Command::new("install");
        writer.args(["-m", "755", "/dev/stdin"]).arg(&path).stdin(Stdio::piped());
        let mut writer = writer.spawn().expect("install");
        let mut input = writer.stdin.take().expect("a pipe");
        write!(input, "#!/bin/sh\n{script}\n").expect("a script");
        drop(input);
        assert!(writer.wait().expect("its end").success());
        let binary = TestBinary { name: "it".into(), path, directory: directory.path().to_owned() };
        (directory, binary)
    }

    #[test]
    fn skips_are_counted_on_standard_error() {
        let (directory, binary) = binary(
            "echo 'SKIP a: needs runc' >&2; echo noise >&2; echo 'test result: ok. 2 passed; 0 failed; 0 ignored'",
        );
        let bin = directory.path().to_owned();
        let outcome =
            binary.run(&Setting { filter: &[], bin: Some(&bin), reaper: None, lane: "root" }).expect("a run");
        assert_eq!((outcome.counts.passed, outcome.counts.skipped), (1, 1));
    }

    #[test]
    fn a_test_that_passes_alone_is_flaky() {
        let (directory, binary) = binary(
            "case \"$*\" in *--exact*) echo 'test result: ok. 1 passed; 0 failed; 0 ignored';;\n\
             *) printf 'test b ... FAILED\\n\\nfailures:\\n    b\\n\\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\\n'; exit 101;; esac",
        );
        let bin = directory.path().to_owned();
        let outcome =
            binary.run(&Setting { filter: &[], bin: Some(&bin), reaper: None, lane: "root" }).expect("a run");
        assert_eq!((outcome.counts.passed, outcome.counts.failed), (2, 0));
        assert_eq!(outcome.flaky, ["b"]);
    }

    #[test]
    fn a_test_that_fails_alone_too_has_failed() {
        let (_directory, binary) = binary(
            "printf 'test b ... FAILED\\n\\nfailures:\\n    b\\n\\ntest result: FAILED. 1 passed; 1 failed; 0 ignored\\n'; exit 101",
        );
        let outcome =
            binary.run(&Setting { filter: &[], bin: None, reaper: None, lane: "check" }).expect("a run");
        assert_eq!((outcome.counts.passed, outcome.counts.failed), (1, 1));
        assert_eq!(outcome.failed, ["b"]);
    }

    #[test]
    fn a_death_after_the_last_test_is_a_failure() {
        let (directory, binary) =
            binary("echo 'test result: ok. 2 passed; 0 failed; 0 ignored'; kill -SEGV $$");
        let bin = directory.path().to_owned();
        let outcome =
            binary.run(&Setting { filter: &[], bin: Some(&bin), reaper: None, lane: "root" }).expect("a run");
        assert_eq!((outcome.counts.passed, outcome.counts.failed), (2, 1));
        assert_eq!(outcome.failed, ["(the binary, after its last test)"]);
    }

    #[test]
    fn tests_after_a_death_are_run() {
        let (directory, binary) = binary(
            "case \"$*\" in *--list*) printf 'a: test\\nb: test\\nc: test\\n';;\n\
             *--exact*b) exit 9;;\n\
             *--exact*) printf 'test c ... ok\\n\\ntest result: ok. 1 passed; 0 failed; 0 ignored\\n';;\n\
             *) printf 'test a ... ok\\ntest b ... '; exit 9;; esac",
        );
        let bin = directory.path().to_owned();
        let outcome =
            binary.run(&Setting { filter: &[], bin: Some(&bin), reaper: None, lane: "root" }).expect("a run");
        assert_eq!((outcome.counts.passed, outcome.counts.failed), (2, 1));
        assert_eq!(outcome.failed, ["b"]);
    }
}
