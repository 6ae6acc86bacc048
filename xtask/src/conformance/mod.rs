//! `cargo xtask conformance`: other people's test suites, run from a checkout of theirs that is already built.
//!
//! What fails for a reason that isn't ours is listed in `SUITE.txt` beside this file, with the reason; a test that fails
//! without being listed fails the run, and so does a listed one that passes. With `--beside`, Debian's runc and crun run
//! the same: a test that one of them passes and ours doesn't must have a very good reason.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use crate::{build, setup};

mod cage;
mod expected;
mod suites;

use cage::Cage;
use suites::Suite;

const USAGE: &str = "cargo xtask conformance runtime-tools|contest|crun|runc --path CHECKOUT [--runtime BINARY] [--beside] [FILTER...]";

/// What became of one test.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It passed.
    Pass,
    /// It failed, or didn't end in time.
    Fail,
    /// It said that it can't run here.
    Skip,
}

/// The verdicts of a suite's tests, by their names.
pub(crate) type Verdicts = BTreeMap<String, Verdict>;

struct Options<'a> {
    suite: Suite,
    checkout: PathBuf,
    runtime: Option<PathBuf>,
    beside: bool,
    filter: Vec<&'a str>,
}

/// Runs a suite and compares with what is expected.
pub(crate) fn conformance(arguments: &[&str]) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("conformance suites create containers: run it as root");
    }
    let options = parse(arguments)?;
    options.suite.check(&options.checkout)?;
    setup::install(&["runc", "crun"])?;
    if options.suite == Suite::Runc {
        setup::install(&["bats", "gawk", "jq"])?;
    }
    let corten = match &options.runtime {
        Some(path) => {
            std::fs::canonicalize(path).with_context(|| format!("no runtime {}", path.display()))?
        }
        None => build::build()?.join("corten"),
    };
    let cage = Cage::new(options.suite == Suite::Crun)?;
    let ours = run(&options, &cage, "corten", &corten)?;
    if options.beside {
        let mut peers = Vec::new();
        for name in ["runc", "crun"] {
            let verdicts = run(&options, &cage, name, Path::new(&format!("/usr/bin/{name}")))?;
            peers.push((name, verdicts));
        }
        beside(&ours, &peers);
    }
    cage.remove()?;
    expected::compare(options.suite.expected(), &ours, options.filter.is_empty())
}

fn parse<'a>(arguments: &[&'a str]) -> Result<Options<'a>> {
    let [suite, rest @ ..] = arguments else { bail!("{USAGE}") };
    let suite = Suite::named(suite).with_context(|| format!("no suite {suite:?}\n{USAGE}"))?;
    let (mut checkout, mut runtime, mut beside, mut filter) = (None, None, false, Vec::new());
    let mut words = rest.iter().copied();
    while let Some(word) = words.next() {
        match word {
            "--path" => checkout = words.next().map(PathBuf::from),
            "--runtime" => runtime = words.next().map(PathBuf::from),
            "--beside" => beside = true,
            option if option.starts_with('-') => bail!("unknown option {option}\n{USAGE}"),
            word => filter.push(word),
        }
    }
    let checkout = checkout.with_context(|| format!("--path is missing\n{USAGE}"))?;
    let checkout =
        std::fs::canonicalize(&checkout).with_context(|| format!("no checkout {}", checkout.display()))?;
    Ok(Options { suite, checkout, runtime, beside, filter })
}

fn run(options: &Options<'_>, cage: &Cage, name: &str, binary: &Path) -> Result<Verdicts> {
    let mut runtime = cage.runtime(name, binary)?;
    if options.suite == Suite::Crun {
        runtime = match name {
            "crun" => runtime,
            "corten" => cage.called_crun(&runtime)?,
            _ => cage.as_crun(&runtime)?,
        };
    }
    let verdicts = options.suite.run(&options.checkout, &runtime, cage, &options.filter)?;
    if verdicts.is_empty() {
        bail!("no test ran");
    }
    let count = |wanted| verdicts.values().filter(|&&verdict| verdict == wanted).count();
    println!(
        "{name}: {} passed, {} failed, {} skipped",
        count(Verdict::Pass),
        count(Verdict::Fail),
        count(Verdict::Skip)
    );
    Ok(verdicts)
}

/// Prints the tests in which the runtimes differ.
fn beside(ours: &Verdicts, peers: &[(&str, Verdicts)]) {
    for (test, verdict) in ours {
        let theirs: Vec<String> = peers
            .iter()
            .filter(|(_, verdicts)| verdicts.get(test) != Some(verdict))
            .map(|(name, verdicts)| format!("{name} {:?}", verdicts.get(test)))
            .collect();
        if !theirs.is_empty() {
            println!("differs: {test}: corten {verdict:?}, {}", theirs.join(", "));
        }
    }
}
