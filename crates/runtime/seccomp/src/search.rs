//! A binary search tree over intervals of system call numbers.
//!
//! Neighbours with the same answer are one interval: a profile that allows 350 of 450 system calls has some
//! sixty, so six or seven comparisons find any answer. (The kernel also runs the filter once for every number
//! when it is loaded, to find those that need no filter at all.)

use crate::{
    Instruction,
    arch::{JUMP, JUMP_GREATER_EQUAL, RETURN, length, op},
    condition::{Rule, chain},
    rules::Decisions,
};

/// From `start` to where the next begins.
struct Interval<'a> {
    start: u32,
    decision: Decision<'a>,
}

#[derive(Clone, Copy)]
enum Decision<'a> {
    Return(u32),
    Chain(&'a [Rule]),
}

/// The code for all numbers; `base` is added to them. `wide`: arguments have 64 bits.
pub(crate) fn tree(decisions: &Decisions<'_>, default: u32, base: u32, wide: bool) -> Vec<Instruction> {
    let intervals = intervals(decisions, default);
    let mut code = Vec::new();
    Tree { default, base, wide }.emit(&intervals, &mut code);
    code
}

fn intervals<'a>(decisions: &'a Decisions<'_>, default: u32) -> Vec<Interval<'a>> {
    let mut intervals = Vec::new();
    let mut before = None;
    // One more than there are: what follows is the default's.
    for (start, entry) in (0..).zip(decisions.entries.iter().chain([&None])) {
        let decision = match entry {
            None => Decision::Return(default),
            Some(entry) => entry.always.map_or(Decision::Chain(&entry.rules), Decision::Return),
        };
        let value = if let Decision::Return(value) = decision { Some(value) } else { None };
        if value.is_none() || value != before {
            intervals.push(Interval { start, decision });
        }
        before = value;
    }
    intervals
}

/// What is the same for all nodes.
struct Tree {
    default: u32,
    base: u32,
    wide: bool,
}

impl Tree {
    fn emit(&self, intervals: &[Interval<'_>], code: &mut Vec<Instruction>) {
        if let [only] = intervals {
            match only.decision {
                Decision::Return(value) => code.push(op(RETURN, 0, 0, value)),
                Decision::Chain(rules) => code.extend(chain(rules, self.default, self.wide)),
            }
            return;
        }
        let (left, right) = intervals.split_at(intervals.len() / 2);
        let Some(first) = right.first() else { return };
        let start = self.base + first.start;
        let at = code.len();
        code.push(op(JUMP_GREATER_EQUAL, 0, 0, start));
        self.emit(left, code);
        let distance = length(&code[at + 1..]);
        if let Ok(near) = u8::try_from(distance) {
            code[at].jt = near;
        } else {
            // Too far for a conditional jump: past an unconditional one if the number is lower.
            code[at].jf = 1;
            code.insert(at + 1, op(JUMP, 0, 0, distance));
        }
        self.emit(right, code);
    }
}
