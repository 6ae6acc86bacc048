//! The suites: what they need, how they are run and what their output says.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail};

use super::cage::Cage;
use super::{Verdict, Verdicts};

/// How long one program of a suite may take.
const DEADLINE: Duration = Duration::from_secs(150);

/// An outside suite.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Suite {
    /// opencontainers/runtime-tools: programs that print TAP.
    RuntimeTools,
    /// youki's contest.
    Contest,
    /// crun's Python tests.
    Crun,
    /// runc's own, for bats.
    Runc,
}

impl Suite {
    pub(super) const ALL: [Self; 4] = [Self::RuntimeTools, Self::Contest, Self::Crun, Self::Runc];

    pub(super) fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|suite| suite.name() == name)
    }

    fn name(self) -> &'static str {
        match self {
            Self::RuntimeTools => "runtime-tools",
            Self::Contest => "contest",
            Self::Crun => "crun",
            Self::Runc => "runc",
        }
    }

    /// The list of tests that are expected to fail.
    pub(super) fn expected(self) -> &'static str {
        match self {
            Self::RuntimeTools => include_str!("runtime-tools.txt"),
            Self::Contest => include_str!("contest.txt"),
            Self::Crun => include_str!("crun.txt"),
            Self::Runc => include_str!("runc.txt"),
        }
    }

    /// Fails when the checkout isn't built, and says how it is.
    pub(super) fn check(self, checkout: &Path) -> Result<()> {
        let (files, how): (&[&str], _) = match self {
            Self::RuntimeTools => (
                &["runtimetest", "validation/state/state.t"],
                "go build -tags netgo,osusergo -o runtimetest ./cmd/runtimetest, and of each validation/NAME/NAME.go a NAME.t",
            ),
            Self::Contest => (
                &["contest", "runtimetest", "bundle.tar.gz"],
                "cargo build --release -p contest; runtimetest with -Ctarget-feature=+crt-static; both and tests/contest/contest/bundle.tar.gz into the checkout",
            ),
            Self::Crun => (
                &["tests/init"],
                "in tests: a config.h that defines HAVE_SECCOMP, HAVE_ERROR_H and HAVE_LINUX_IOPRIO_H, then gcc -static -I. -o init init.c -lseccomp",
            ),
            Self::Runc => (
                &["tests/cmd/_bin/recvtty", "tests/integration/testdata/busybox-amd64.tar.xz"],
                "make test-binaries; a root file system of busybox and one of Debian as tests/integration/get-images.sh has them, which wants to find `go`; Debian's bats and jq",
            ),
        };
        match files.iter().find(|file| !checkout.join(file).exists()) {
            Some(file) => bail!("{} has no {file}: build it ({how})", checkout.display()),
            None => Ok(()),
        }
    }

    /// Runs the tests whose programs' or groups' names contain one of `filter`.
    pub(super) fn run(
        self,
        checkout: &Path,
        runtime: &Path,
        cage: &Cage,
        filter: &[&str],
    ) -> Result<Verdicts> {
        let mut verdicts = Verdicts::new();
        for part in self.parts(checkout, cage)? {
            if !filter.is_empty() && !filter.iter().any(|word| part.contains(word)) {
                continue;
            }
            let mut command = self.command(checkout, runtime, cage, &part)?;
            let (text, ended_well) = cage.run(command.current_dir(checkout), DEADLINE)?;
            let found = match self {
                Self::RuntimeTools => vec![(part.clone(), program(&text, ended_well))],
                Self::Contest => contest(&text),
                Self::Crun | Self::Runc => tap(&text),
            };
            if found.is_empty() {
                verdicts.insert(part.clone(), Verdict::Fail);
            }
            let name = |test: String| if test == part { test } else { format!("{part}:{test}") };
            for (test, verdict) in found {
                verdicts.insert(name(test), verdict);
            }
            if std::env::var_os("CORTEN_CONFORMANCE_OUTPUT").is_some() {
                println!("--- {part}\n{text}");
            }
        }
        Ok(verdicts)
    }

    /// What is run one after the other.
    fn parts(self, checkout: &Path, cage: &Cage) -> Result<Vec<String>> {
        if self == Self::Contest {
            let (text, _) =
                cage.run(Command::new(checkout.join("contest")).arg("list").current_dir(checkout), DEADLINE)?;
            return Ok(text.lines().map(|line| line.trim().to_owned()).filter(|l| !l.is_empty()).collect());
        }
        let dir = checkout.join(match self {
            Self::Crun => "tests",
            Self::Runc => "tests/integration",
            _ => "validation",
        });
        let mut names = Vec::new();
        for entry in fs::read_dir(&dir).with_context(|| format!("can't read {}", dir.display()))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            match self {
                Self::Crun => names.extend(
                    name.strip_prefix("test_").and_then(|n| n.strip_suffix(".py")).map(str::to_owned),
                ),
                Self::Runc => names.extend(name.strip_suffix(".bats").map(str::to_owned)),
                _ => names.extend(program_path(checkout, &name).exists().then_some(name)),
            }
        }
        names.sort();
        Ok(names)
    }

    fn command(self, checkout: &Path, runtime: &Path, cage: &Cage, part: &str) -> Result<Command> {
        Ok(match self {
            Self::RuntimeTools => {
                let mut command = Command::new(program_path(checkout, part));
                command.env("RUNTIME", runtime);
                command
            }
            Self::Contest => {
                let mut command = Command::new(checkout.join("contest"));
                command.args(["run", "--runtime"]).arg(runtime);
                command.arg("--runtimetest").arg(checkout.join("runtimetest")).args(["-t", part]);
                command
            }
            Self::Crun => {
                let mut command = Command::new("python3");
                command.arg(format!("tests/test_{part}.py"));
                command.env("OCI_RUNTIME", runtime).env("INIT", checkout.join("tests/init"));
                command.env("PYTHONUNBUFFERED", "1"); // what was done before a deadline counts
                command.env("PYTHONPATH", cage.python()?);
                command
            }
            Self::Runc => {
                let mut command = Command::new("bats");
                command.args(["--tap", &format!("tests/integration/{part}.bats")]).env("RUNC", runtime);
                command
            }
        })
    }
}

fn program_path(checkout: &Path, name: &str) -> PathBuf {
    checkout.join("validation").join(name).join(format!("{name}.t"))
}

/// The verdict on a program that prints TAP: it has passed when all of its tests have and it got to its end. Some plan no
/// tests at all, and print only what went wrong.
fn program(text: &str, ended_well: bool) -> Verdict {
    let tests = tap(text);
    if tests.is_empty() {
        let clean = ended_well && text.lines().any(|line| line == "1..0") && !text.contains("\"error\"");
        return if clean { Verdict::Pass } else { Verdict::Fail };
    }
    if !ended_well || tests.iter().any(|(_, verdict)| *verdict == Verdict::Fail) {
        return Verdict::Fail;
    }
    if tests.iter().all(|(_, verdict)| *verdict == Verdict::Skip) { Verdict::Skip } else { Verdict::Pass }
}

/// The tests in TAP: `ok 1 - name # SKIP why`.
fn tap(text: &str) -> Vec<(String, Verdict)> {
    let mut tests = Vec::new();
    for line in text.lines() {
        let (rest, good) = match (line.strip_prefix("ok "), line.strip_prefix("not ok ")) {
            (Some(rest), _) => (rest, true),
            (_, Some(rest)) => (rest, false),
            _ => continue,
        };
        let (said, directive) = rest.split_once('#').unwrap_or((rest, ""));
        let skipped = directive.trim_start().to_ascii_uppercase().starts_with("SKIP");
        let name = said.trim().trim_start_matches(|c: char| c.is_ascii_digit()).trim();
        let name = name.trim_start_matches('-').trim().to_owned();
        let verdict = match (skipped, good) {
            (true, _) => Verdict::Skip,
            (_, true) => Verdict::Pass,
            (_, false) => Verdict::Fail,
        };
        tests.push((name, verdict));
    }
    tests
}

/// The tests in contest's output: `1 / 3 : name : ok`.
fn contest(text: &str) -> Vec<(String, Verdict)> {
    let mut tests = Vec::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(3, " : ").collect();
        let [number, name, said] = words.as_slice() else { continue };
        if !number.contains(" / ") {
            continue;
        }
        let verdict = match said.trim() {
            "ok" => Verdict::Pass,
            "skipped" => Verdict::Skip,
            _ => Verdict::Fail,
        };
        tests.push(((*name).to_owned(), verdict));
    }
    tests
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tap_is_read() {
        let text =
            "TAP version 13\nok 1 - a\nnot ok 2 - b # 0.1s\nok 3 # SKIP c\nok 4 - d #SKIP no # 0.2s\n1..4\n";
        let expected =
            [("a", Verdict::Pass), ("b", Verdict::Fail), ("", Verdict::Skip), ("d", Verdict::Skip)];
        assert_eq!(tap(text), expected.map(|(name, verdict)| (name.to_owned(), verdict)));
        assert_eq!(program("ok 1 - a\nok 2 # SKIP b\n", true), Verdict::Pass);
        assert_eq!(program("ok 1 # SKIP b\n", true), Verdict::Skip);
        assert_eq!(program("ok 1 - a\n", false), Verdict::Fail);
        assert_eq!(program("", true), Verdict::Fail);
        assert_eq!(program("TAP version 13\n1..0\n", true), Verdict::Pass);
        assert_eq!(program("TAP version 13\n  ---\n  {\"error\": \"x\"}\n1..0\n", true), Verdict::Fail);
    }

    #[test]
    fn contests_output_is_read() {
        let text =
            "# Start group g\n1 / 3 : a b : ok\n2 / 3 : c : skipped\n\twhy\n3 / 3 : d : not ok\n\twhy : x\n";
        let expected = [("a b", Verdict::Pass), ("c", Verdict::Skip), ("d", Verdict::Fail)];
        assert_eq!(contest(text), expected.map(|(name, verdict)| (name.to_owned(), verdict)));
    }
}
