//! Conditions on arguments. An argument has 64 bits, a BPF register 32: two loads each, high half first.
//!
//! On architectures with 32-bit arguments only the low half counts, of the profile's values too. On x32 the high
//! half may hold anything, and the kernel doesn't look at it either.

use oci_spec::runtime::{LinuxSeccompArg, LinuxSeccompOperator as Operator};

use crate::{
    Instruction,
    arch::{AND, JUMP_EQUAL, JUMP_GREATER, JUMP_GREATER_EQUAL, LOAD, RETURN, op},
};

/// A rule with conditions that must all hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    pub(crate) conditions: Vec<LinuxSeccompArg>,
    pub(crate) action: u32,
}

/// Where a test leads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum To {
    /// The next instruction.
    Next,
    /// The condition holds.
    Pass,
    /// It doesn't: so the rule doesn't apply.
    Fail,
}

struct Step {
    code: u16,
    k: u32,
    yes: To,
    no: To,
}

/// The rules one after the other, and at last the default.
pub(crate) fn chain(rules: &[Rule], default: u32, wide: bool) -> Vec<Instruction> {
    let mut code: Vec<Instruction> = rules.iter().flat_map(|rule| one(rule, wide)).collect();
    code.push(op(RETURN, 0, 0, default));
    code
}

/// Falls through to what follows if the rule doesn't apply.
fn one(rule: &Rule, wide: bool) -> Vec<Instruction> {
    let conditions: Vec<Vec<Step>> = rule.conditions.iter().map(|condition| steps(condition, wide)).collect();
    let mut left: usize = conditions.iter().map(Vec::len).sum();
    let mut code = Vec::with_capacity(left + 1);
    for condition in &conditions {
        for (index, step) in condition.iter().enumerate() {
            left -= 1;
            let offset = |to| match to {
                To::Next => 0,
                To::Pass => condition.len() - index - 1,
                // Over the rest of the conditions and the return.
                To::Fail => left + 1,
            };
            let short = |to| u8::try_from(offset(to)).expect("six conditions have at most 36 instructions");
            code.push(op(step.code, short(step.yes), short(step.no), step.k));
        }
    }
    code.push(op(RETURN, 0, 0, rule.action));
    code
}

fn steps(condition: &LinuxSeccompArg, wide: bool) -> Vec<Step> {
    let steps = wide_steps(condition);
    if wide {
        return steps;
    }
    // The low half is tested last: from its load on.
    let low = steps.iter().rposition(|step| step.code == LOAD).unwrap_or(0);
    steps.into_iter().skip(low).collect()
}

fn wide_steps(condition: &LinuxSeccompArg) -> Vec<Step> {
    let step = |code, k, yes, no| Step { code, k, yes, no };
    let plain = |code, k| step(code, k, To::Next, To::Next);
    // Offsets in struct seccomp_data, in which the halves have the machine's order: little endian all of ours.
    let low_word = 16 + 8 * u32::try_from(condition.index()).expect("checked when the profile was read");
    let (load_low, load_high) = (plain(LOAD, low_word), plain(LOAD, low_word + 4));
    let value = condition.value();
    let (high, low) = halves(value);
    let equal = |k, yes, no| step(JUMP_EQUAL, k, yes, no);
    match condition.op() {
        Operator::ScmpCmpEq => {
            vec![load_high, equal(high, To::Next, To::Fail), load_low, equal(low, To::Pass, To::Fail)]
        }
        Operator::ScmpCmpNe => {
            vec![load_high, equal(high, To::Next, To::Pass), load_low, equal(low, To::Fail, To::Pass)]
        }
        Operator::ScmpCmpGt => above(load_high, load_low, value, JUMP_GREATER, To::Pass, To::Fail),
        Operator::ScmpCmpGe => above(load_high, load_low, value, JUMP_GREATER_EQUAL, To::Pass, To::Fail),
        Operator::ScmpCmpLe => above(load_high, load_low, value, JUMP_GREATER, To::Fail, To::Pass),
        Operator::ScmpCmpLt => above(load_high, load_low, value, JUMP_GREATER_EQUAL, To::Fail, To::Pass),
        Operator::ScmpCmpMaskedEq => {
            let (high_wanted, low_wanted) = halves(condition.value_two().unwrap_or(0) & value);
            vec![
                load_high,
                plain(AND, high),
                equal(high_wanted, To::Next, To::Fail),
                load_low,
                plain(AND, low),
                equal(low_wanted, To::Pass, To::Fail),
            ]
        }
    }
}

/// Leads to `yes` if the argument is greater (or equal, by `low_test`) than the value.
fn above(load_high: Step, load_low: Step, value: u64, low_test: u16, yes: To, no: To) -> Vec<Step> {
    let (high, low) = halves(value);
    vec![
        load_high,
        Step { code: JUMP_GREATER, k: high, yes, no: To::Next },
        Step { code: JUMP_EQUAL, k: high, yes: To::Next, no },
        load_low,
        Step { code: low_test, k: low, yes, no },
    ]
}

#[allow(clippy::cast_possible_truncation, reason = "that is what halving means")]
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
