//! Profiles made of bytes: a fuzzer's, or random ones.

use oci_spec::runtime::LinuxSeccomp;
use serde_json::{Value, json};

use super::meaning::CALLS;

/// Bytes to choose by; zeroes once they are used up.
pub(crate) struct Choices<'a>(pub(crate) &'a [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// Below `count`.
    fn below(&mut self, count: usize) -> usize {
        usize::from(self.byte()) % count
    }

    fn one<'a, T>(&mut self, of: &'a [T]) -> &'a T {
        &of[self.below(of.len())]
    }

    /// A value around which comparisons change their mind, or any.
    fn value(&mut self) -> u64 {
        const VALUES: [u64; 12] = [
            0,
            1,
            2,
            5,
            0x7fff_ffff,
            0x8000_0000,
            0xffff_ffff,
            1 << 32,
            0x1_0000_0005,
            0x7e02_0000,
            1 << 63,
            u64::MAX,
        ];
        match self.below(VALUES.len() + 1) {
            known if known < VALUES.len() => VALUES[known],
            _ => (0..8).fold(0, |value, _| value << 8 | u64::from(self.byte())),
        }
    }
}

const ACTIONS: [&str; 9] =
    ["ALLOW", "ERRNO", "KILL_PROCESS", "LOG", "TRACE", "KILL", "TRAP", "KILL_THREAD", "NOTIFY"];
const OPERATORS: [&str; 7] = ["NE", "LT", "LE", "EQ", "GE", "GT", "MASKED_EQ"];
const ARCHITECTURES: [&str; 5] = ["X86_64", "X86", "X32", "AARCH64", "S390X"];

/// A profile that names only what is in [`CALLS`] (and one that nobody knows). With `one_action` all rules but those with
/// the default's say the same.
pub(crate) fn profile(choices: &mut Choices<'_>, one_action: bool) -> LinuxSeccomp {
    let mut profile = action(choices, "defaultAction", "defaultErrnoRet", ACTIONS.len() - 1);
    let some = choices.byte();
    let named = ARCHITECTURES.iter().enumerate().filter(|(bit, _)| some >> bit & 1 == 1);
    profile["architectures"] = named.map(|(_, arch)| json!(format!("SCMP_ARCH_{arch}"))).collect();
    let mut same = action(choices, "action", "errnoRet", ACTIONS.len() - 1);
    let mut rules = Vec::new();
    for _ in 0..choices.below(12) {
        // Nothing that writes may be notified.
        if !one_action {
            same = action(choices, "action", "errnoRet", ACTIONS.len());
        }
        let mut rule = same.clone();
        let names = (0..=choices.below(3)).map(|_| match choices.below(CALLS.len() + 1) {
            known if known < CALLS.len() => CALLS[known].0,
            _ => "no_such_call",
        });
        rule["names"] =
            names.filter(|name| *name != "write" || same["action"] != "SCMP_ACT_NOTIFY").collect();
        rule["args"] = (0..choices.below(4)).map(|_| condition(choices)).collect();
        rules.push(rule);
    }
    profile["syscalls"] = Value::Array(rules);
    serde_json::from_value(profile).expect("a profile")
}

fn action(choices: &mut Choices<'_>, key: &str, errno: &str, count: usize) -> Value {
    let action = ACTIONS[choices.below(count)];
    let mut value = json!({key: format!("SCMP_ACT_{action}")});
    if matches!(action, "ERRNO" | "TRACE") && choices.below(2) == 1 {
        value[errno] = json!(choices.one(&[0, 1, 13, 38, 4095]));
    }
    value
}

fn condition(choices: &mut Choices<'_>) -> Value {
    let op = choices.one(&OPERATORS);
    // Few arguments, so that some are the same.
    let mut condition =
        json!({"index": choices.below(3) * 2, "op": format!("SCMP_CMP_{op}"), "value": choices.value()});
    if choices.below(2) == 1 {
        condition["valueTwo"] = json!(choices.value());
    }
    condition
}

/// Arguments on both sides of all that the profile compares with.
pub(crate) fn arguments(profile: &LinuxSeccomp) -> Vec<[u64; 6]> {
    let conditions = profile.syscalls().iter().flatten().flat_map(|rule| rule.args().iter().flatten());
    let around =
        |value: u64| [value, value.wrapping_sub(1), value.wrapping_add(1), value ^ (1 << 32), !value];
    let mut values: Vec<u64> = conditions
        .flat_map(|c| [c.value(), c.value() & c.value_two().unwrap_or(0)])
        .flat_map(around)
        .collect();
    values.extend([0, 2, 5, 11, u64::MAX]);
    values.sort_unstable();
    values.dedup();
    let count = values.len();
    let pairs = (0..count).flat_map(|at| {
        [[at, at, at], [at, (at + 1) % count, (at * 7 + 3) % count], [at, count - 1 - at, at / 2]]
    });
    pairs.map(|[a, b, c]| [values[a], 9, values[b], 9, values[c], 9]).collect()
}

/// All numbers that are something to the profile's rules, and their neighbours.
pub(crate) fn calls() -> Vec<(u32, u32)> {
    let audits = [
        (0xc000_003e_u32, 0_usize, 0_u32),
        (0x4000_0003, 1, 0),
        (0xc000_003e, 2, 0x4000_0000),
        (0xc000_00b7, 3, 0),
    ];
    let mut calls = vec![(0x8000_0016, 4), (0, 0)];
    for (audit, column, base) in audits {
        for number in CALLS.iter().filter_map(|(_, numbers)| u32::try_from(numbers[column]).ok()) {
            calls.extend([(audit, base + number), (audit, base + number + 1)]);
        }
        calls.extend([(audit, base + 1000), (audit, base | 0x3fff_ffff), (audit, u32::MAX)]);
    }
    calls.sort_unstable();
    calls.dedup();
    calls
}
