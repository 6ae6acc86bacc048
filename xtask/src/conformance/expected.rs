//! The lists of tests that are expected to fail.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};

use super::{Verdict, Verdicts};

/// How the reasons of tests begin that may pass all the same.
const RACE: &str = "a race: ";

/// Fails on an unexpected failure or pass. `whole` says that the whole suite was run, so that a listed test that didn't
/// run is an error too.
pub(super) fn compare(list: &str, verdicts: &Verdicts, whole: bool) -> Result<()> {
    let expected = parse(list)?;
    let mut wrong = Vec::new();
    for (test, verdict) in verdicts {
        match (verdict, expected.get(test.as_str())) {
            (Verdict::Fail, None) => wrong.push(format!("failed: {test}")),
            // Who wins the race that it is about, is nobody's fault.
            (Verdict::Pass, Some(reason)) if reason.starts_with(RACE) => {}
            (Verdict::Pass, Some(reason)) => wrong.push(format!("passed, but is listed: {test}: {reason}")),
            _ => {}
        }
    }
    if whole {
        let missing = expected.keys().filter(|test| !verdicts.contains_key(**test));
        wrong.extend(missing.map(|test| format!("listed, but there is no such test: {test}")));
    }
    for line in &wrong {
        println!("{line}");
    }
    match wrong.len() {
        0 => Ok(()),
        n => bail!("{n} tests ended otherwise than expected"),
    }
}

/// Lines `test: reason`; empty ones and those that begin with `#` are for people.
fn parse(list: &str) -> Result<BTreeMap<&str, &str>> {
    let lines = list.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            // Tests' names have single colons.
            let (test, reason) = line.split_once(": ").with_context(|| format!("no reason: {line:?}"))?;
            Ok((test, reason))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::suites::Suite;
    use super::*;

    fn verdicts(list: &[(&str, Verdict)]) -> Verdicts {
        list.iter().map(|(test, verdict)| ((*test).to_owned(), *verdict)).collect()
    }

    #[test]
    fn what_is_expected_is_fine() {
        let seen = verdicts(&[("a", Verdict::Pass), ("b:c", Verdict::Fail), ("d", Verdict::Skip)]);
        compare("# why\nb:c: the kernel can't\n", &seen, true).unwrap();
    }

    #[test]
    fn what_is_not_is_an_error() {
        let list = "b: the kernel can't";
        compare(list, &verdicts(&[("b", Verdict::Pass)]), true).unwrap_err();
        compare(list, &verdicts(&[("a", Verdict::Fail)]), false).unwrap_err();
        compare(list, &verdicts(&[("a", Verdict::Pass)]), true).unwrap_err();
        compare(list, &verdicts(&[("a", Verdict::Pass)]), false).unwrap();
        let race = "b: a race: with the clock";
        compare(race, &verdicts(&[("b", Verdict::Pass)]), true).unwrap();
        compare(race, &verdicts(&[("b", Verdict::Fail)]), true).unwrap();
    }

    #[test]
    fn the_lists_have_reasons() {
        for suite in Suite::ALL {
            parse(suite.expected()).unwrap();
        }
    }
}
